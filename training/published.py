"""Published figures on LRS2's test list (1,243 clips), for orientation: no run of ours made them."""

from dataclasses import dataclass

from training.protocol import LENGTHS

TABLE_1 = "Table 1 (arXiv:2210.15563)"
FIGURE_2 = "Fig. 2 (arXiv:2210.15563)"


@dataclass(frozen=True)
class Published:
    """Percent right at K = 5, 7, 9, 11, 13 and 15 frames, as the source prints them."""

    label: str
    source: str
    parameters: int
    percent: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.percent) != len(LENGTHS):
            raise ValueError(f"{self.label}: {len(self.percent)} figures, not {len(LENGTHS)}")


PUBLISHED = (
    Published("SyncNet", FIGURE_2, 13_600_000, (75.8, 82.3, 87.6, 91.8, 94.5, 96.1)),
    Published("Perfect Match", FIGURE_2, 13_600_000, (88.1, 93.8, 96.4, 97.9, 98.7, 99.1)),
    Published("AVST", FIGURE_2, 42_400_000, (92.0, 95.5, 97.7, 98.8, 99.3, 99.6)),
    Published("VocaLiST", FIGURE_2, 80_100_000, (92.8, 96.7, 98.4, 99.3, 99.6, 99.8)),
    Published("BCE", TABLE_1, 13_281_000, (71.36, 81.44, 88.84, 93.41, 96.19, 97.69)),
    Published("KD", TABLE_1, 13_281_000, (80.87, 88.62, 93.48, 96.32, 97.90, 98.82)),
    Published("RKD", TABLE_1, 13_281_000, (86.06, 92.42, 95.95, 97.80, 98.75, 99.29)),
    Published("MiniLM*", TABLE_1, 13_281_000, (85.60, 92.03, 95.91, 97.72, 98.72, 99.25)),
    Published("FitNets", TABLE_1, 13_281_000, (90.81, 95.48, 97.77, 98.81, 99.42, 99.66)),
    Published("MTD", TABLE_1, 13_281_000, (91.45, 95.75, 97.99, 98.95, 99.46, 99.68)),
)
