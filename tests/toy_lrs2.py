"""Talking heads laid out as LRS2 is released, to try its commands without its licence."""

import sys
from pathlib import Path

from talking import write_talking_head

CLIPS = {"pretrain": 12, "val": 2, "test": 2}  # by list; a step of four micro-batches takes twelve


def write_toy(root: Path, *, seconds: float = 2.0) -> Path:
    """Write ROOT/main, ROOT/pretrain and the lists; every clip says something else."""
    seed = 0
    for name, count in CLIPS.items():
        speaker = root / ("pretrain" if name == "pretrain" else "main") / f"{name}-speaker"
        speaker.mkdir(parents=True, exist_ok=True)
        clips = [speaker / f"{number:05d}.mp4" for number in range(1, count + 1)]
        for clip in clips:
            write_talking_head(clip, seconds=seconds, side=160, seed=seed)
            seed += 1
        lines = [f"{speaker.name}/{clip.stem}\n" for clip in clips]
        (root / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
    return root


if __name__ == "__main__":
    write_toy(Path(sys.argv[1]))
