"""Pairs of a video window and an audio window, in sync or not, drawn deterministically from clips.

B: pairs; r, s: the widest reach of the networks that see a pair, in frames and mel steps. A draw depends
on (seed, epoch, index) alone. Only ticks at which picture and sound both have a window whose whole reach lies
inside the clip are drawn, for pairs in sync and not in sync alike.

An ordered pair of ticks (v, a) is drawn from all that are allowed, each as likely as any other; then it is
decided whether it becomes the picture and the sound of v, in sync, or the picture of v and the sound of a. A
pair is allowed where its ticks are near enough and not both silent, whichever of them comes first, so v and a
are distributed alike: neither the picture alone nor the sound alone tells what became of them. Ticks with
more to be paired with are drawn more often, those in the midst of a clip more often than those at its ends.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avsync_cli.errors import ConfigError
from avsync_cli.mel import MelTrack, mel_spectrogram
from avsync_cli.spec import SAMPLES_PER_FRAME, WINDOW_FRAMES, WINDOW_MEL_STEPS
from avsync_cli.timing import mel_step_at
from training.data.cache import SOUND_FULL_SCALE
from training.data.clips import LoadedClip
from training.data.draws import FIXED_PAIR, PAIR
from training.data.loudness import loud_ticks
from training.data.sources import Source, clip_order
from training.reach import Reach
from training.recipe import PairsConfig

Negatives = int | Literal["clip"]
MelOf = Literal["clip", "chunk"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """The windows from two ticks of one clip; they are in sync where the ticks are one."""

    video_tick: int
    audio_tick: int

    @property
    def in_sync(self) -> bool:
        return self.video_tick == self.audio_tick


@dataclass(frozen=True)
class Drawable:
    """A clip with what may be drawn from it: the T ticks from `first_tick` on, which have picture and sound.

    `loud` [T] says where the sound is above SILENCE_RMS, `partners` [T] how many of the other ticks' sounds a
    tick's picture may be paired with; at least one tick has some.
    """

    clip: LoadedClip
    first_tick: int
    loud: NDArray[np.bool_]
    partners: NDArray[np.int64]
    negatives: Negatives

    def draw(self, rng: np.random.Generator) -> Pair:
        """In sync or not with equal chance; see the module for what of."""
        ends = np.cumsum(self.partners)  # the allowed pairs are numbered through, tick by tick
        number = int(rng.integers(ends[-1]))
        row = int(np.searchsorted(ends, number, side="right"))
        tick = self.first_tick + row
        if rng.random() < 0.5:
            return Pair(tick, tick)
        return Pair(tick, int(self.others(tick)[number - ends[row]]))  # counted from the tick's last

    def others(self, tick: int) -> NDArray[np.int64]:
        """The ticks whose sound a negative of a tick's picture may take.

        They lie at most `negatives` frames away, and are not silent where the tick's own sound is.
        """
        first, end = self.first_tick, self.first_tick + len(self.loud)
        if self.negatives != "clip":
            first, end = max(first, tick - self.negatives), min(end, tick + self.negatives + 1)
        ticks = np.arange(first, end)
        allowed = ticks != tick
        if not self.loud[tick - self.first_tick]:
            allowed &= self.loud[ticks - self.first_tick]
        others: NDArray[np.int64] = ticks[allowed]
        return others


def make_drawable(clip: LoadedClip, *, reach: Reach, negatives: Negatives) -> Drawable | None:
    """What may be drawn from a clip; None where nothing may, as it is too short or silent throughout."""
    first_audio, end_audio = _audio_ticks(clip.mel, reach.mel_steps)
    first = max(clip.first_tick + reach.frames, first_audio)
    end = min(clip.first_tick + len(clip.crops) - WINDOW_FRAMES - reach.frames + 1, end_audio)
    loud = (clip.loud if clip.loud is not None else loud_ticks(clip.mel))[
        first - clip.mel.first_tick : max(first, end) - clip.mel.first_tick
    ]
    partners = _count_partners(loud, negatives)
    return Drawable(clip, first, loud, partners, negatives) if partners.any() else None


def _count_partners(loud: NDArray[np.bool_], negatives: Negatives) -> NDArray[np.int64]:
    """How many ticks `Drawable.others` gives for each tick: [T]."""
    rows = np.arange(len(loud))
    most = len(loud) if negatives == "clip" else negatives
    first, end = np.maximum(rows - most, 0), np.minimum(rows + most + 1, len(loud))
    before = np.concatenate([[0], np.cumsum(loud)])
    partners: NDArray[np.int64] = np.where(loud, end - first - 1, before[end] - before[first])
    return partners


class PairSource(Protocol):
    """Where pairs come from; see `ClipPairs`."""

    epoch_pairs: int

    def pairs(self, epoch: int, indices: Sequence[int]) -> list[tuple[LoadedClip, Pair]]: ...


class ClipPairs:
    """Pairs of clips that are in memory, epoch by epoch."""

    def __init__(self, clips: Sequence[LoadedClip], config: PairsConfig, *, seed: int, reach: Reach) -> None:
        self._config, self._seed = config, seed
        found = [make_drawable(clip, reach=reach, negatives=config.negatives) for clip in clips]
        self.clips = [clip for clip in found if clip is not None]
        if not self.clips:
            raise ConfigError("no clip is long and loud enough to draw pairs from")
        self.epoch_pairs = config.epoch_pairs or len(self.clips)
        self._chances = None if config.epoch_pairs is None else _chances(self.clips, config.domains)

    def pairs(self, epoch: int, indices: Sequence[int]) -> list[tuple[LoadedClip, Pair]]:
        """The pairs of the given indices of an epoch."""
        order = None
        if self._chances is None:
            order = clip_order(len(self.clips), self._seed, epoch)
        drawn = []
        for index in indices:
            rng = np.random.default_rng((PAIR, self._seed, epoch, index))
            place = order[index] if order is not None else rng.choice(len(self.clips), p=self._chances)
            drawn.append((self.clips[place].clip, self.clips[place].draw(rng)))
        return drawn


@dataclass(frozen=True)
class PairBatch:
    """B pairs cut out with `reach` around their windows.

    frames uint8 [B, 5 + 2r, 48, 96] or [B, 5 + 2r, 48, 96, 3], lips float [B, 5 + 2r, 120],
    mels float [B, 80, 16 + 2s], labels float [B]: 1 in sync, 0 not.
    """

    frames: Tensor
    lips: Tensor
    mels: Tensor
    labels: Tensor
    reach: Reach

    def within(self, reach: Reach) -> "PairBatch":
        """The same pairs as a network of a smaller reach sees them."""
        r, s = self.reach.frames - reach.frames, self.reach.mel_steps - reach.mel_steps
        frames, steps = self.frames.shape[1], self.mels.shape[2]
        return PairBatch(
            self.frames[:, r : frames - r],
            self.lips[:, r : frames - r],
            self.mels[:, :, s : steps - s],
            self.labels,
            reach,
        )

    def to(self, device: torch.device) -> "PairBatch":
        """On a device; copies from pinned memory go on while the GPU computes."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "PairBatch":
        """In memory that a GPU reads by itself; a DataLoader calls it."""
        return self._with(lambda tensor: tensor.pin_memory())

    def _with(self, change: Callable[[Tensor], Tensor]) -> "PairBatch":
        frames, lips, mels, labels = map(change, (self.frames, self.lips, self.mels, self.labels))
        return PairBatch(frames, lips, mels, labels, self.reach)


def cut_pairs(pairs: Sequence[tuple[LoadedClip, Pair]], reach: Reach, *, mel: MelOf = "clip") -> PairBatch:
    """The windows of B pairs; `mel` is as in `PairsConfig`. Raises ConfigError."""
    frames, lips = [], []
    for clip, pair in pairs:
        row = pair.video_tick - clip.first_tick - reach.frames
        rows = slice(row, row + WINDOW_FRAMES + 2 * reach.frames)
        frames.append(clip.crops[rows])
        lips.append(clip.lips[rows].reshape(len(frames[-1]), -1))
    if len({part.shape[2:] for part in frames}) > 1:
        raise ConfigError("the clips are in part grey and in part RGB")
    return PairBatch(
        torch.from_numpy(np.stack(frames)),
        torch.from_numpy(np.stack(lips).astype(np.float32)),
        cut_sounds(pairs, reach, mel=mel),
        torch.tensor([float(pair.in_sync) for _, pair in pairs]),
        reach,
    )


def cut_sounds(pairs: Sequence[tuple[LoadedClip, Pair]], reach: Reach, *, mel: MelOf = "clip") -> Tensor:
    """The mels [B, 80, 16 + 2s] of B pairs. Raises ConfigError."""
    mels = [
        chunk_mel(clip, pair.audio_tick) if mel == "chunk" else _cut_mel(clip, pair, reach)
        for clip, pair in pairs
    ]
    return torch.from_numpy(np.stack(mels).astype(np.float32))


def chunk_mel(clip: LoadedClip, tick: int) -> Floats:
    """Mel [80, 16] of the 3,200 samples of the audio window of a tick, as if there were no others.

    Raises ConfigError where the clip was prepared without its sound.
    """
    if clip.sound is None:
        raise ConfigError(f"{clip.entry.file}: the cache holds no samples; prepare it with --sound")
    start = (tick - clip.mel.origin_tick) * SAMPLES_PER_FRAME
    samples = clip.sound[start : start + WINDOW_FRAMES * SAMPLES_PER_FRAME]
    scaled = samples.astype(np.float32) / np.float32(SOUND_FULL_SCALE)
    return mel_spectrogram(scaled)[:WINDOW_MEL_STEPS].T


def _cut_mel(clip: LoadedClip, pair: Pair, reach: Reach) -> Floats:
    step = mel_step_at(pair.audio_tick - clip.mel.origin_tick) - reach.mel_steps
    return clip.mel.mel[step : step + WINDOW_MEL_STEPS + 2 * reach.mel_steps].T


def fixed_batches(
    source: Source,
    count: int,
    size: int,
    *,
    seed: int,
    reach: Reach,
    negatives: Negatives,
    mel: MelOf = "clip",
) -> list[PairBatch]:
    """`count` pairs to validate on in batches of `size`, the same at every call; no clip is held afterwards.

    They go through the source's clips, but not the machine-made ones, which the protocol leaves out too.
    Raises ConfigError where no clip can give a pair.
    """
    drawn = fixed_pairs(source, count, seed=seed, reach=reach, negatives=negatives)
    batches = []
    while part := list(itertools.islice(drawn, size)):
        batches.append(cut_pairs(part, reach, mel=mel))
    if not batches:
        raise ConfigError("no clip to validate on is long and loud enough to draw pairs from")
    return batches


def fixed_pairs(
    source: Source, count: int, *, seed: int, reach: Reach, negatives: Negatives
) -> Iterator[tuple[LoadedClip, Pair]]:
    """The pairs of `fixed_batches`, one by one; none where no clip can give one."""
    clips = _passing(source, seed=seed, reach=reach, negatives=negatives)
    for index, clip in zip(range(count), clips, strict=False):
        yield clip.clip, clip.draw(np.random.default_rng((FIXED_PAIR, seed, index)))


def _passing(source: Source, *, seed: int, reach: Reach, negatives: Negatives) -> Iterator[Drawable]:
    """What may be drawn from, epoch after epoch; it ends only where an epoch has nothing."""
    for epoch in itertools.count():
        found = False
        for _, clip in source.epoch(seed, epoch):
            drawable = make_drawable(clip, reach=reach, negatives=negatives)
            if drawable is not None and not clip.entry.machine_made:
                found = True
                yield drawable
        if not found:
            return


def _audio_ticks(mel: MelTrack, margin: int) -> tuple[int, int]:
    """First and end of the ticks whose window has `margin` more mel steps of sound on either side."""
    ticks = range(mel.first_tick, mel.first_tick + mel.ticks)
    if not ticks or not margin:
        return mel.first_tick, mel.first_tick + len(ticks)
    starts = [mel_step_at(tick - mel.origin_tick) for tick in ticks]
    inside = [
        tick
        for tick, start in zip(ticks, starts, strict=True)
        if start - margin >= starts[0] and start + margin <= starts[-1]
    ]
    return (inside[0], inside[-1] + 1) if inside else (mel.first_tick, mel.first_tick)


def _chances(clips: list[Drawable], domains: dict[str, float]) -> NDArray[np.float64]:
    """How likely each clip is: the domains' shares, and within a domain the square root of the length."""
    weights: NDArray[np.float64] = np.sqrt([np.count_nonzero(clip.partners) for clip in clips])
    if domains:
        held = [clip.clip.entry.domain for clip in clips]
        for domain, share in domains.items():
            members = np.array([name == domain for name in held])
            if share < 0 or not members.any():
                raise ConfigError(f"domain {domain!r}: a negative share, or no clip of it to draw from")
            weights[members] *= share / weights[members].sum()
        weights[[name not in domains for name in held]] = 0
    if not weights.sum() > 0:
        raise ConfigError("the domains' shares must not all be zero")
    chances: NDArray[np.float64] = weights / weights.sum()
    return chances
