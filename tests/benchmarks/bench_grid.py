"""What a check says of talking heads whose pictures lie beside the grid of 40 ms that the first one begins.

python tests/benchmarks/bench_grid.py
"""

import sys
import tempfile
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import numpy as np
from clips import write_clip
from talking import RATE, TalkingHead, open_mouth, syllables, voice

from avsync_cli.check import check_file, load_engine

SECONDS = 8
LEAD_MS = 120
BESIDE_MS = (0, -18, -10, 10, 18)
SEEDS = (0, 1)


class ExactHead(TalkingHead):
    """Its mouth is as far open as at the very moment of each picture."""

    def __init__(self, loudness: np.ndarray, stamps_s: list[Fraction]) -> None:
        super().__init__(loudness, fps=Fraction(25))
        self.stamps_s = stamps_s

    def __call__(self, number: int) -> np.ndarray:
        moment = 100 * (1 + float(self.stamps_s[number]))
        amount = float(np.interp(moment, np.arange(len(self.loudness)), self.loudness))
        return open_mouth(self.rgb, self.mouth, amount)


def write_head(path: Path, *, beside_ms: int, seed: int) -> Path:
    """A head whose sound is early; all pictures but the first lie beside the grid."""
    beside_s = Fraction(beside_ms, 1000)
    stamps_s = [Fraction(0), *(Fraction(number, 25) + beside_s for number in range(1, SECONDS * 25))]
    loudness = syllables(SECONDS + 2, seed=seed)
    first = round((1 + LEAD_MS / 1000) * RATE)
    sound = voice(loudness, seed=seed)[first : first + SECONDS * RATE]
    return write_clip(path, stamps_s=stamps_s, paint=ExactHead(loudness, stamps_s), sound=sound, rate=RATE)


def main() -> None:
    engine = load_engine()
    with tempfile.TemporaryDirectory() as made:
        for seed in SEEDS:
            for beside_ms in BESIDE_MS:
                path = write_head(Path(made) / "head.mp4", beside_ms=beside_ms, seed=seed)
                report = check_file(path, engine=engine)
                lead = "no answer" if report.audio_lead_ms is None else f"{report.audio_lead_ms:.1f} ms early"
                print(f"head {seed}, pictures {beside_ms:+3d} ms beside the grid: {lead}", flush=True)


if __name__ == "__main__":
    main()
