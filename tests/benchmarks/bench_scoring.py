"""What should score a pair: the cosine of two encoders, the cross-modal student, or one after the other.

    python tests/benchmarks/bench_scoring.py --cosine runs/match-default/last.pt \
        --pairs runs/default-mtd/best.pt --cache CACHE [--clips 60] [--max-frames 34]

Percent right of the 31 offsets by the paper's protocol, on validation clips spread evenly, and what it costs
to score one window against its sound at all offsets, encoders left out. In "cosine, then pairs" the cosine
leaves so many of the 31 offsets to the cross-modal student. "Unweighted" takes the gates out: every window
counts alike in a mean. `CACHE` is that of `python -m training prepare`.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import process_time

import numpy as np
import torch

from avsync_cli.offsets import LEADS_FRAMES, average_curve
from avsync_cli.spec import CANDIDATES, RANGE_FRAMES, SAME_OFFSET_FRAMES, WINDOW_FRAMES
from training.data.clips import LoadedClip
from training.evaluation.candidates import open_judged
from training.evaluation.evaluate import choose_clips
from training.evaluation.protocol import LENGTHS, averaged_scores
from training.evaluation.score_clips import Encoders, score_clip

KEPT = (2, 3, 5, 10)
ROUNDS = 20
Curves = tuple[np.ndarray, np.ndarray]  # of the cosine and of the pairs, [V, 31] or [1, 31]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cosine", type=Path, required=True, help="checkpoint of the matching")
    parser.add_argument("--pairs", type=Path, required=True, help="checkpoint of the distillation")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--max-frames", type=int, default=34)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cosine, pairs = (
        open_judged(path, network=None, threads=1).encoders for path in (options.cosine, options.pairs)
    )
    clips = choose_clips(options.cache, "val", only=(), count=options.clips)

    def scores_of(encoders: Encoders) -> list[np.ndarray]:
        return [score_clip(clip, encoders, max_frames=options.max_frames) for clip in clips]

    weighted, unweighted, crossed = map(scores_of, (cosine, without_gate(cosine), pairs))
    cosine_ms, pairs_ms = (time_pairs_ms(clips[0], encoders, CANDIDATES) for encoders in (cosine, pairs))
    print(
        "| scoring | pairs | CPU ms a window | " + " | ".join(f"K={n}" for n in LENGTHS) + " | whole clip |"
    )
    print("|---" * (4 + len(LENGTHS)) + "|")
    show("cosine", 0, cosine_ms, weighted, weighted, CANDIDATES)
    show("cosine, unweighted", 0, cosine_ms, unweighted, unweighted, CANDIDATES)
    for kept in KEPT:
        cost = cosine_ms + time_pairs_ms(clips[0], pairs, kept)
        show(f"cosine, then pairs on the best {kept}", kept, cost, weighted, crossed, kept)
    show("pairs", CANDIDATES, pairs_ms, crossed, crossed, CANDIDATES)


def without_gate(encoders: Encoders) -> Encoders:
    """The same with embeddings of length 1."""

    def encode_video(crops: np.ndarray, lips: np.ndarray, windows: int) -> np.ndarray:
        video = encoders.encode_video(crops, lips, windows)
        unit: np.ndarray = video / np.linalg.norm(video, axis=1, keepdims=True)
        return unit

    return replace(encoders, encode_video=encode_video)


def show(
    name: str, scored: int, cost_ms: float, coarse: list[np.ndarray], fine: list[np.ndarray], kept: int
) -> None:
    """Print a line: the best by `fine` of the `kept` best by `coarse`, at every length."""

    def percent(curves_of: Callable[[np.ndarray], np.ndarray]) -> str:
        shares = [share_right((curves_of(a), curves_of(b)), kept) for a, b in zip(coarse, fine, strict=True)]
        return f"{100 * np.mean([share for share in shares if share is not None]):.1f}"

    figures = [percent(partial(_averaged, n)) for n in LENGTHS]
    figures.append(percent(lambda scores: average_curve(scores)[None]))
    print(f"| {name} | {scored} | {cost_ms:.3f} | " + " | ".join(figures) + " |", flush=True)


def _averaged(length: int, scores: np.ndarray) -> np.ndarray:
    return averaged_scores(scores, length)


def share_right(curves: Curves, kept: int) -> float | None:
    """Share of the curves that are right to a frame; None where none can be judged."""
    coarse, fine = curves
    judged = np.isfinite(coarse[:, RANGE_FRAMES])
    if not judged.any():
        return None
    ranked = np.argsort(np.argsort(-np.nan_to_num(coarse[judged], nan=-np.inf), axis=1), axis=1)
    chosen = np.where(ranked < kept, fine[judged], np.nan)
    found = LEADS_FRAMES[np.nanargmax(chosen, axis=1)]
    return float(np.mean(np.abs(found) <= SAME_OFFSET_FRAMES))


def time_pairs_ms(clip: LoadedClip, encoders: Encoders, count: int) -> float:
    """Median CPU time to score one video window against `count` audio windows."""
    with torch.inference_mode():
        video = encoders.encode_video(clip.crops, clip.lips.astype(np.float32), 1)
        ticks = clip.first_tick + np.arange(min(count, len(clip.crops) - WINDOW_FRAMES))
        audio = encoders.encode_audio(clip.mel, ticks)
        sounds = audio[np.arange(count) % len(audio)]
        windows = video.repeat(count, axis=0)
        times = []
        for _ in range(ROUNDS):
            before = process_time()
            encoders.score(windows, sounds)
            times.append(process_time() - before)
    return 1000 * float(np.median(times))


if __name__ == "__main__":
    main()
