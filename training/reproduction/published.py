"""Published figures on LRS2's test list (1,243 clips), to compare with: no run of ours made them.

Here is all that the texts at hand print in numbers: those of Table 1 in arXiv:2210.15563v3, those of the
points of Fig. 2 in the logs that its authors publish beside their code (github.com/xjchenGit/MTDVocaLiST,
`pretrained/*.log`). Of Table 2, of most bars of Fig. 3 and of Fig. 4's curves there are none, as they stand
in pictures; what the text says of them in words is in `GAPS` and `TREND`.
"""

from dataclasses import dataclass

from training.evaluation.protocol import LENGTHS

PAPER = "arXiv:2210.15563"
NAMES = tuple(str(length) for length in LENGTHS)


@dataclass(frozen=True)
class Published:
    """Percent by name, "5" .. "15" for K frames, as `source` prints them of a row or bar.

    `experiment` and `label` are those of the recipe that reproduces it; "" where there is none.
    """

    label: str
    experiment: str
    source: str
    parameters: int
    percent: dict[str, float]


@dataclass(frozen=True)
class Gap:
    """What the text says of two bars of Fig. 3: by how many points `higher` is above `lower` at K=5."""

    higher: str
    lower: str
    points: float


def _row(label: str, experiment: str, source: str, parameters: float, *percent: float) -> Published:
    return Published(
        label, experiment, source, round(parameters * 1e6), dict(zip(NAMES, percent, strict=False))
    )


_FIG_2 = ("Fig. 2", f"Fig. 2 ({PAPER}), in numbers in its authors' logs")
_TABLE_1 = ("Table 1", f"Table 1 ({PAPER})", 13.281)
_LOG = ("", "log of the released weights", 13.281)
_AGAIN = ("", "log of VocaLiST run by the authors of MTDVocaLiST", 80.107)

PUBLISHED = (
    _row("SyncNet", *_FIG_2, 13.6, 75.8, 82.3, 87.6, 91.8, 94.5, 96.1),
    _row("Perfect Match", *_FIG_2, 13.6, 88.1, 93.8, 96.4, 97.9, 98.7, 99.1),
    _row("AVST", *_FIG_2, 42.4, 92.0, 95.5, 97.7, 98.8, 99.3, 99.6),
    _row("VocaLiST", *_FIG_2, 80.1, 92.8, 96.7, 98.4, 99.3, 99.6, 99.8),
    _row("BCE", *_TABLE_1, 71.36, 81.44, 88.84, 93.41, 96.19, 97.69),
    _row("KD", *_TABLE_1, 80.87, 88.62, 93.48, 96.32, 97.90, 98.82),
    _row("RKD", *_TABLE_1, 86.06, 92.42, 95.95, 97.80, 98.75, 99.29),
    _row("MiniLM*", *_TABLE_1, 85.60, 92.03, 95.91, 97.72, 98.72, 99.25),
    _row("FitNets", *_TABLE_1, 90.81, 95.48, 97.77, 98.81, 99.42, 99.66),
    _row("MTD", *_TABLE_1, 91.45, 95.75, 97.99, 98.95, 99.46, 99.68),
    _row("VocaLiST, run again", *_AGAIN, 92.44, 96.52, 98.27, 99.13, 99.53, 99.76),
    _row("MTDVocaLiST", *_LOG, 91.46, 95.74, 97.99, 98.95, 99.46, 99.68),
    _row("UW-25D", "Fig. 3", f"Fig. 3, section 4.3 ({PAPER})", 13.281, 91.45),
)
GAPS = (Gap("AW-13D", "Uniform", 0.15), Gap("AW-25D", "Uniform", -0.06))
TREND = "MTD falls and Last-MTD falls with it; FitNets does not fall significantly"  # Fig. 4, in words


def find_published(experiment: str, label: str) -> Published | None:
    """The published row or bar of a recipe's experiment and label, if it was printed."""
    return next((row for row in PUBLISHED if (row.experiment, row.label) == (experiment, label)), None)
