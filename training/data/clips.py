"""Prepared clips in memory, and batches drawn from them.

C clips, W video windows, A audio windows a clip, F = W + 4 + 2r frames, T mel steps; r, s: how many frames
and mel steps a network looks beyond its windows. A batch depends on (seed, step) alone, so a resumed run
sees what an uninterrupted one would have seen.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avsync_cli.errors import ConfigError
from avsync_cli.mel import MelTrack
from avsync_cli.spec import CROP_HEIGHT, CROP_WIDTH, LIP_POINTS, MEL_BINS, WINDOW_FRAMES, WINDOW_MEL_STEPS
from avsync_cli.timing import mel_step_at
from training.config import DataConfig
from training.data.cache import CachedClip, read_manifest, read_parts, unpack_parts
from training.reach import Reach

NO_REACH = Reach()


@dataclass(frozen=True)
class LoadedClip:
    """One clip: crops, lips float16 [N, 40, 3], its mel, and the tick of frame 0.

    crops are uint8, grey [N, 48, 96] or RGB [N, 48, 96, 3] (see `cache`). `sound` int16 [S] are the samples
    from the mel's origin on, where the clip was prepared with them; `loud` bool [ticks] says of every tick of
    the mel whether it is loud, where that is known (see `loudness`).
    """

    entry: CachedClip
    crops: NDArray[np.uint8]
    lips: NDArray[np.float16]
    first_tick: int
    mel: MelTrack
    sound: NDArray[np.int16] | None = None
    loud: NDArray[np.bool_] | None = None

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
class Section:
    """W windows of a clip from a tick on, some of which at its ends are taken away: how many of the video
    windows at either end, how many of the audio windows. Past a cut the last frame or step is repeated, as
    it is at a clip's end."""

    clip: LoadedClip
    tick: int
    video_cut: tuple[int, int] = (0, 0)
    audio_cut: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Validity:
    """Which windows are real and which only fill up: video [C, W], audio [C, A], both bool."""

    video: Tensor
    audio: Tensor
    context: int


@dataclass(frozen=True)
class Batch:
    """crops uint8 [C, F, 48, 96], lips [C, F, 40, 3], mel [C, T, 80], with the network's reach before the
    first window; where their windows begin, reach left out: video_rows [C, W] frames, audio_steps [C, A]
    mel steps; and which of them are real."""

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
    return make_clip(entry, unpack_parts(video, audio))


def make_clip(entry: CachedClip, parts: dict[str, NDArray[Any]]) -> LoadedClip:
    """One clip from the arrays of its parts (see `cache.unpack_parts`)."""
    mel = MelTrack(parts["mel"], int(parts["origin_tick"]), int(parts["first_tick"]), int(parts["ticks"]))
    first_tick, sound = int(parts["video_tick"]), parts.get("sound")
    return LoadedClip(entry, parts["crops"], parts["lips"], first_tick, mel, sound, parts.get("loud"))


class Sampler:
    """Draws batches: a domain for each place, then a clip of it, then a run of its windows."""

    def __init__(
        self, clips: list[LoadedClip], config: DataConfig, *, seed: int, steps: int, reach: Reach = NO_REACH
    ) -> None:
        self._config, self._seed, self._steps, self._reach = config, seed, steps, reach
        unknown = set(config.leave_out) - {clip.entry.source for clip in clips}
        if unknown:
            raise ConfigError(f"leave_out: the cache has no clip of the source {sorted(unknown)[0]!r}")
        usable = [
            clip
            for clip in clips
            if clip.windows >= config.min_windows and clip.entry.source not in config.leave_out
        ]
        if not config.start and not config.end:
            config = replace(config, start=_shares_by_length(usable))
            self._config = config
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
            section = Section(clip, int(rng.integers(first, last_start + 1)))
            sections.append(self._cut(section, rng) if self._config.cut_windows else section)
        if self._config.grouped:
            sections.sort(key=lambda section: (section.clip.entry.domain, section.clip.entry.source))
        return make_batch(sections, self._config.windows, self._config.audio_context, reach=self._reach)

    def _cut(self, section: Section, rng: np.random.Generator) -> Section:
        """Where a clip ends, picture and sound end together, and a network that looks beyond its windows
        would learn to match the ends. So each is cut by itself."""
        most = min(self._config.cut_windows, (section.clip.windows - self._config.min_windows) // 2)
        cuts = rng.integers(0, max(0, most) + 1, 4).tolist()
        return replace(section, video_cut=(cuts[0], cuts[1]), audio_cut=(cuts[2], cuts[3]))


def make_batch(sections: list[Section], windows: int, context: int, *, reach: Reach = NO_REACH) -> Batch:
    """A batch of sections of `windows` video windows; short ones repeat their last window.

    `context` audio windows before and after them are candidates too.
    """
    clips, sounds = len(sections), windows + 2 * context
    frames = windows + WINDOW_FRAMES - 1 + 2 * reach.frames
    # A step more than the sounds' floor can ask for, whatever the phase of the first.
    steps = mel_step_at(sounds - 1) + 1 + WINDOW_MEL_STEPS + 2 * reach.mel_steps
    crops = np.empty((clips, frames, CROP_HEIGHT, CROP_WIDTH), np.uint8)
    lips = np.empty((clips, frames, LIP_POINTS, 3), np.float32)
    mel = np.empty((clips, steps, MEL_BINS), np.float32)
    video_rows = np.empty((clips, windows), np.int64)
    audio_steps = np.empty((clips, sounds), np.int64)
    video_valid = np.empty((clips, windows), bool)
    audio_valid = np.empty((clips, sounds), bool)
    for c, section in enumerate(sections):
        rows, video_rows[c], video_valid[c] = _video_places(section, windows, reach)
        crops[c], lips[c] = section.clip.crops[rows], section.clip.lips[rows]
        places, audio_steps[c], audio_valid[c] = _audio_places(section, sounds, context, steps, reach)
        mel[c] = section.clip.mel.mel[places]
    validity = Validity(torch.from_numpy(video_valid), torch.from_numpy(audio_valid), context)
    return Batch(
        crops=torch.from_numpy(crops),
        lips=torch.from_numpy(lips),
        mel=torch.from_numpy(mel),
        video_rows=torch.from_numpy(video_rows),
        audio_steps=torch.from_numpy(audio_steps),
        validity=validity,
    )


Places = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]


def _video_places(section: Section, windows: int, reach: Reach) -> Places:
    """The frames [F] to take, the window rows [W] in them, and which windows are real [W]."""
    clip, offset = section.clip, section.tick - section.clip.first_tick
    count = min(windows, clip.run[1] - section.tick)
    before, after = section.video_cut
    frames = offset - reach.frames + np.arange(windows + WINDOW_FRAMES - 1 + 2 * reach.frames)
    # Uncut, a section is surrounded by the rest of its clip.
    first = offset + before if before else 0
    last = offset + count - after + WINDOW_FRAMES - 2 if after else len(clip.crops) - 1
    index = np.arange(windows)
    real = (index >= before) & (index < count - after)
    return frames.clip(first, last), np.minimum(index, count - 1), real


def _audio_places(section: Section, sounds: int, context: int, steps: int, reach: Reach) -> Places:
    """The mel steps [T] to take, the first steps [A] of the windows in them, and which are real [A]."""
    mel = section.clip.mel
    ticks = section.tick - context + np.arange(sounds)
    first, last = mel.first_tick, mel.first_tick + mel.ticks - 1
    low, high = 0, len(mel.mel) - 1
    before, after = section.audio_cut
    if before:
        first = max(first, int(ticks[0]) + before)
        low = mel_step_at(first - mel.origin_tick)
    if after:
        last = min(last, int(ticks[-1]) - after)
        high = mel_step_at(last - mel.origin_tick) + WINDOW_MEL_STEPS - 1
    starts = mel.starts(ticks.clip(mel.first_tick, mel.first_tick + mel.ticks - 1))
    places = starts[0] - reach.mel_steps + np.arange(steps)
    return places.clip(low, high), starts - starts[0], (ticks >= first) & (ticks <= last)


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


def _shares_by_length(clips: list[LoadedClip]) -> dict[str, float]:
    """Every domain's share where clips are drawn by the square root of their length alone. Raises
    ConfigError."""
    if not clips:
        raise ConfigError("no clip is long enough to train on")
    shares: dict[str, float] = {}
    for clip in clips:
        shares[clip.entry.domain] = shares.get(clip.entry.domain, 0.0) + math.sqrt(len(clip.crops))
    return shares


def _normalised(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    total = float(weights.sum())
    if not (math.isfinite(total) and total > 0 and (weights >= 0).all()):
        raise ConfigError("the domains' shares must be positive and not all zero")
    return weights / total
