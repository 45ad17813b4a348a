"""What a wider range costs: how often an offset is given to sound of other clips, and to a clip's own.

    python tests/benchmarks/bench_range.py --cache CACHE

Stretches of validation clips against 8 s more of sound on either side than they have: that of other clips
throughout, or with their own in the middle. `CACHE` is that of `python -m training prepare`.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from avsync_cli.answers import answer_scores
from avsync_cli.model import Student, load_student
from avsync_cli.offsets import score_offsets
from training.data.cache import read_manifest
from training.data.clips import load_clip
from training.evaluation.calibration_examples import Encoded, encode_clip

RANGES = (15, 30, 50, 100)
FRAMES = (26, 50, 100, 200)
OWN_FRAMES = 15  # of own sound on both sides
DRAWS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    cache, student = parser.parse_args().cache, load_student(threads=1)
    clips = [clip for clip in read_manifest(cache) if clip.split == "val" and clip.reason is None]
    encoded = [encode_clip(student, load_clip(cache, clip)) for clip in clips]
    rng = np.random.default_rng(0)
    begin, pairs = time.perf_counter(), 0
    given: dict[tuple[int, int, bool], list[bool]] = {}
    calibration = student.calibration
    assert calibration is not None
    for clip in encoded:
        for frames in (frames for frames in FRAMES if frames - 4 < len(clip.video)):
            for own in (True, False) * DRAWS:
                scores = score_stretch(clip, frames - 4, encoded, student, own=own, rng=rng)
                pairs += scores.size
                for reach in RANGES:
                    middle = scores[:, max(RANGES) - reach : max(RANGES) + reach + 1]
                    answer = answer_scores(middle, calibration)
                    given.setdefault((frames, reach, own), []).append(answer.reason is None)
    print(f"{1e6 * (time.perf_counter() - begin) / pairs:.1f} µs a pair")
    print("frames | " + " | ".join(f"±{reach}: others, own" for reach in RANGES))
    for frames in FRAMES:
        cells = [
            f"{np.mean(given[frames, reach, False]):.1%}, {np.mean(given[frames, reach, True]):.1%}"
            for reach in RANGES
        ]
        print(f"{frames} ({len(given[frames, 15, True])}) | " + " | ".join(cells))


def score_stretch(
    clip: Encoded,
    windows: int,
    clips: list[Encoded],
    student: Student,
    *,
    own: bool,
    rng: np.random.Generator,
) -> np.ndarray:
    """Scores [V, 201] of a random stretch of a clip against the sound of others, around its own if `own`."""
    reach = max(RANGES)
    first = int(rng.integers(0, len(clip.video) - windows + 1))
    sound: list[np.ndarray] = []
    while sum(map(len, sound)) < windows + 2 * reach:
        other = clips[int(rng.integers(len(clips)))]
        sound += [] if other is clip else [other.audio]
    audio = np.concatenate(sound)[: windows + 2 * reach]
    if own:
        begin = clip.video_tick + first - clip.audio_tick  # row of the sound that belongs to the first window
        rows = np.arange(max(0, begin - OWN_FRAMES), min(len(clip.audio), begin + windows + OWN_FRAMES))
        audio[rows - begin + reach] = clip.audio[rows]
    return score_offsets(
        clip.video[first : first + windows],
        audio,
        first_tick_video=0,
        first_tick_audio=-reach,
        score=student.score,
        range_frames=reach,
    )


if __name__ == "__main__":
    main()
