"""Prepared clips in memory, and batches drawn from them.

C clips, W video windows, A audio windows a clip, F = W + 4 frames, T mel steps. A batch depends on
(seed, step) alone, so a resumed run sees what an uninterrupted one would have seen.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avsync_cli.errors import ConfigError
from avsync_cli.mel import MelTrack
from avsync_cli.spec import CROP_HEIGHT, CROP_WIDTH, LIP_POINTS, MEL_BINS, WINDOW_FRAMES, WINDOW_MEL_STEPS
from avsync_cli.timing import mel_step_at
from training.cache import CachedClip, read_manifest, read_parts, unpack_parts
from training.config import DataConfig
from training.matching import Validity


@dataclass(frozen=True)
class LoadedClip:
    """One clip: crops, lips float16 [N, 40, 3], its mel, and the tick of frame 0.

    crops are uint8, grey [N, 48, 96] or RGB [N, 48, 96, 3] (see `cache`).
    """

    entry: CachedClip
    crops: NDArray[np.uint8]
    lips: NDArray[np.float16]
    first_tick: int
    mel: MelTrack

    @property
    def run(self) -> tuple[int, int]:
        """The ticks (first, end) at which a whole video window and a whole audio window begin."""
        end_video = self.first_tick + len(self.crops) - WINDOW_FRAMES + 1
        first = max(self.first_tick, self.mel.first_tick)
        return first, max(first, min(end_video, self.mel.first_tick + self.mel.ticks))

    @property
    def windows(self) -> int:
        """How many ticks have a whole window of both."""
        first, end = self.run
        return end - first


@dataclass(frozen=True)
class Batch:
    """crops uint8 [C, F, 48, 96], lips [C, F, 40, 3], mel [C, T, 80]; where their windows begin:
    video_rows [C, W] frames, audio_steps [C, A] mel steps; and which of them are real."""

    crops: Tensor
    lips: Tensor
    mel: Tensor
    video_rows: Tensor
    audio_steps: Tensor
    validity: Validity


def load_clips(cache: Path, *, split: str) -> list[LoadedClip]:
    """All usable clips of a split, whole in memory. Raises ConfigError."""
    clips = [
        load_clip(cache, entry)
        for entry in read_manifest(cache)
        if entry.reason is None and entry.split == split
    ]
    if not clips:
        raise ConfigError(f"{cache}: holds no clip of the split {split!r}")
    return clips


def load_clip(cache: Path, entry: CachedClip) -> LoadedClip:
    """One clip from the cache. Raises ConfigError."""
    return unpack_clip(entry, *read_parts(cache, entry))


def unpack_clip(entry: CachedClip, video: bytes, audio: bytes) -> LoadedClip:
    """One clip from the files of its two parts."""
    parts = unpack_parts(video, audio)
    mel = MelTrack(parts["mel"], int(parts["origin_tick"]), int(parts["first_tick"]), int(parts["ticks"]))
    return LoadedClip(entry, parts["crops"], parts["lips"], int(parts["video_tick"]), mel)


class Sampler:
    """Draws batches: a domain for each place, then a clip of it, then a run of its windows."""

    def __init__(self, clips: list[LoadedClip], config: DataConfig, *, seed: int, steps: int) -> None:
        self._config, self._seed, self._steps = config, seed, steps
        usable = [clip for clip in clips if clip.windows >= config.min_windows]
        self._domains = sorted(config.start.keys() | config.end.keys())
        self._clips = {
            domain: [clip for clip in usable if clip.entry.domain == domain] for domain in self._domains
        }
        for domain, members in self._clips.items():
            if not members:
                raise ConfigError(f"the cache has no usable clip of the domain {domain!r}")
        self._weights = {
            domain: _normalised(np.sqrt([len(clip.crops) for clip in members]))
            for domain, members in self._clips.items()
        }

    def shares(self, step: int) -> NDArray[np.float64]:
        """The domains' probabilities at a step, in the order of their names."""
        done = step / max(1, self._steps - 1)
        start = np.array([self._config.start.get(name, 0.0) for name in self._domains])
        end = np.array([(self._config.end or self._config.start).get(name, 0.0) for name in self._domains])
        return _normalised((1 - done) * start + done * end)

    def batch(self, step: int) -> Batch:
        rng = np.random.default_rng((self._seed, step))
        sections = []
        for place in rng.choice(len(self._domains), self._config.clips, p=self.shares(step)):
            domain = self._domains[place]
            clip = self._clips[domain][rng.choice(len(self._clips[domain]), p=self._weights[domain])]
            first, end = clip.run
            last_start = max(first, end - self._config.windows)
            sections.append((clip, int(rng.integers(first, last_start + 1))))
        return make_batch(sections, self._config.windows, self._config.audio_context)


def make_batch(sections: list[tuple[LoadedClip, int]], windows: int, context: int) -> Batch:
    """A batch of the given clips, each from the given tick on; short ones repeat their last window."""
    clips, frames, sounds = len(sections), windows + WINDOW_FRAMES - 1, windows + 2 * context
    # A step more than the sounds' floor can ask for, whatever the phase of the first.
    steps = mel_step_at(sounds - 1) + 1 + WINDOW_MEL_STEPS
    crops = np.empty((clips, frames, CROP_HEIGHT, CROP_WIDTH), np.uint8)
    lips = np.empty((clips, frames, LIP_POINTS, 3), np.float32)
    mel = np.empty((clips, steps, MEL_BINS), np.float32)
    video_rows = np.empty((clips, windows), np.int64)
    audio_steps = np.empty((clips, sounds), np.int64)
    video_valid = np.empty((clips, windows), bool)
    audio_valid = np.empty((clips, sounds), bool)
    for c, (clip, tick) in enumerate(sections):
        count = min(windows, clip.run[1] - tick)
        rows = np.minimum(tick - clip.first_tick + np.arange(frames), len(clip.crops) - 1)
        crops[c], lips[c] = clip.crops[rows], clip.lips[rows]
        video_rows[c] = np.minimum(np.arange(windows), count - 1)
        video_valid[c] = np.arange(windows) < count
        ticks = tick - context + np.arange(sounds)
        first, last = clip.mel.first_tick, clip.mel.first_tick + clip.mel.ticks - 1
        audio_valid[c] = (ticks >= first) & (ticks <= last)
        starts = np.array([mel_step_at(int(t) - clip.mel.origin_tick) for t in ticks.clip(first, last)])
        audio_steps[c] = starts - starts[0]
        mel[c] = clip.mel.mel[np.minimum(starts[0] + np.arange(steps), len(clip.mel.mel) - 1)]
    validity = Validity(torch.from_numpy(video_valid), torch.from_numpy(audio_valid), context)
    arrays = (crops, lips, mel, video_rows, audio_steps)
    return Batch(*(torch.from_numpy(array) for array in arrays), validity)


def video_windows(crops: Tensor, lips: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Windows of crops [C, F, 48, 96] and lips [C, F, 40, 3]: [C * W, 5, 48, 96] and [C * W, 5, 120]."""
    index = rows.unsqueeze(2) + torch.arange(WINDOW_FRAMES)  # [C, W, 5]
    clip = torch.arange(len(crops)).view(-1, 1, 1)
    return crops[clip, index].flatten(0, 1), lips.flatten(2)[clip, index].flatten(0, 1)


def audio_windows(mel: Tensor, steps: Tensor) -> Tensor:
    """Windows of mel [C, T, 80] at the given steps [C, A]: [C * A, 80, 16]."""
    index = steps.unsqueeze(2) + torch.arange(WINDOW_MEL_STEPS)  # [C, A, 16]
    clip = torch.arange(len(mel)).view(-1, 1, 1)
    return mel[clip, index].flatten(0, 1).mT.contiguous()


def _normalised(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    total = float(weights.sum())
    if not (math.isfinite(total) and total > 0 and (weights >= 0).all()):
        raise ConfigError("the domains' shares must be positive and not all zero")
    return weights / total
