"""Stretches of training clips: to calibrate int8 graphs on, and others to judge them by.

V: windows of a stretch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsync_cli.contract import Layout
from avsync_cli.errors import ConfigError
from avsync_cli.mel import MelTrack
from avsync_cli.model import audio_inputs, video_inputs
from avsync_cli.spec import FACE_CROP_DEFINITION, WINDOW_FRAMES
from training.data.cache import CachedClip, read_manifest, require_grey, require_rgb
from training.data.clips import load_clip
from training.data.draws import STRETCH

CALIBRATED_STRETCHES = 32
HELD_BACK_STRETCHES = 12
_WINDOWS = 24  # in a stretch at most: about a second

Inputs = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Stretch:
    """Neighbouring frames of a clip, as the clip has them, and the ticks [V] of as many audio windows."""

    file: str
    crops: NDArray[np.uint8]
    lips: NDArray[np.float32]
    mel: MelTrack
    ticks: NDArray[np.int64]


@dataclass(frozen=True)
class Stretches:
    """`calibrated` and `held_back` are of different clips, all of them of the train split."""

    calibrated: tuple[Stretch, ...]
    held_back: tuple[Stretch, ...]


def draw_stretches(cache: Path, layout: Layout, *, seed: int) -> Stretches:
    """Draw stretches for a student of that layout, as evenly from the sources as these have clips.

    Raises ConfigError where the cache holds other crops, or too few train clips.
    """
    (require_rgb if layout.crop == FACE_CROP_DEFINITION else require_grey)(cache)
    rng = np.random.default_rng((STRETCH, seed))
    windows = min(_WINDOWS, layout.chunk_windows)
    clips = list(_in_turn(cache, rng, frames=windows + WINDOW_FRAMES - 1))
    wanted = CALIBRATED_STRETCHES + HELD_BACK_STRETCHES
    if len(clips) < 2:
        raise ConfigError(f"{cache}: holds fewer than two train clips of {windows} windows to calibrate on")
    drawn = [_cut(cache, clip, windows, rng) for clip in clips[:wanted]]
    held_back = max(1, len(drawn) * HELD_BACK_STRETCHES // wanted)
    return Stretches(tuple(drawn[held_back:]), tuple(drawn[:held_back]))


def inputs_of(stretches: tuple[Stretch, ...], layout: Layout, graph: str) -> list[Inputs]:
    """What the tool would give the video or the audio graph for these stretches."""
    if graph == "video":
        made = [video_inputs(layout, stretch.crops, stretch.lips) for stretch in stretches]
    else:
        made = [audio_inputs(layout, stretch.mel, stretch.ticks) for stretch in stretches]
    return [inputs for chunks in made for _, inputs in chunks]


def _in_turn(cache: Path, rng: np.random.Generator, *, frames: int) -> Iterator[CachedClip]:
    """Train clips of at least so many frames, a clip of every source in turn, in a drawn order."""
    sources: dict[str, list[CachedClip]] = {}
    for clip in read_manifest(cache):
        if clip.split == "train" and clip.reason is None and clip.frames >= frames:
            sources.setdefault(clip.source, []).append(clip)
    queues = [[clips[place] for place in rng.permutation(len(clips))] for _, clips in sorted(sources.items())]
    while queues:
        for place in rng.permutation(len(queues)):
            yield queues[place].pop()
        queues = [queue for queue in queues if queue]


def _cut(cache: Path, clip: CachedClip, windows: int, rng: np.random.Generator) -> Stretch:
    loaded = load_clip(cache, clip)
    frames = windows + WINDOW_FRAMES - 1
    first = int(rng.integers(0, len(loaded.crops) - frames + 1))
    ticks = loaded.mel.all_ticks
    begin = int(np.clip(loaded.first_tick + first - ticks[0], 0, max(0, len(ticks) - windows)))
    part = slice(first, first + frames)
    lips = loaded.lips[part].astype(np.float32)
    return Stretch(clip.file, loaded.crops[part], lips, loaded.mel, ticks[begin : begin + windows])
