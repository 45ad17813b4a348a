"""Sound at 16 kHz mono, each stretch of it at the time at which it is to be heard."""

import math
from dataclasses import dataclass
from fractions import Fraction
from threading import RLock
from typing import Any, Protocol

import av
import numpy as np
from numpy.typing import NDArray

from avsync_cli.channels import Polarity
from avsync_cli.gate import refuse_sound
from avsync_cli.pulse import beat
from avsync_cli.spec import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, VIDEO_FPS
from avsync_cli.timing import sample_at, tick_time

# Timestamps of a container may be rounded to 1 ms and wander; only a larger step is a real gap.
_AUDIO_GAP_S = Fraction(1, 100)
_VOICE_HZ = (200, 3400)
_LEVEL_SAMPLES = 2 * SAMPLES_PER_FRAME  # of a level: a frame and half of both neighbours
_LEVEL_WINDOW = np.hanning(_LEVEL_SAMPLES + 1)[:-1]
_VOICE_BINS = slice(*(hz * _LEVEL_SAMPLES // SAMPLE_RATE_HZ for hz in _VOICE_HZ))
_MEL_PERIOD_TICKS = 5  # after which mel steps (3.2 a tick) and ticks begin together again
NO_NAME = "NONE"  # of a channel whose place the file does not tell
_UNNAMED = {6: ["FL", "FR", "FC", "LFE", "BL", "BR"], 8: ["FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"]}
# A step back by more, or forward by more, is a new recording (joined files, a restarted clock): what
# follows cannot be placed beside what went before.
_BREAK_BACK_S = 1
_BREAK_AHEAD_S = 600


@dataclass(frozen=True)
class Sound:
    """Mono 16-kHz float32 [S] in -1..1; `first_sample` counts from the grid's origin (may be < 0)."""

    samples: NDArray[np.float32]
    first_sample: int


class Hearing(Protocol):
    """Where the sound of pictures comes from, while a file is read or after it was."""

    def heard_until(self) -> float:
        """The tick up to which sound is known: minus infinity before any is."""

    def sound_between(self, first_tick: int, end_tick: int) -> Sound | None:
        """The sound of the ticks [first_tick, end_tick), or what there is of it."""

    def forget_sound(self, before_tick: int) -> None:
        """Sound before a tick is not asked for again."""


@dataclass(frozen=True)
class Heard:
    """A sound that is there as a whole, as a `Hearing`."""

    sound: Sound | None

    def heard_until(self) -> float:
        return -math.inf if self.sound is None else math.inf

    def sound_between(self, first_tick: int, end_tick: int) -> Sound | None:
        return None if self.sound is None else cut_sound(self.sound, first_tick, end_tick)

    def forget_sound(self, before_tick: int) -> None:
        """It is kept: others may ask for it."""


class Recorder:
    """Collects decoded audio frames as mono 16 kHz, each stretch placed by its presentation time."""

    def __init__(self) -> None:
        self.stretches: list[tuple[Fraction, list[NDArray[np.float32]]]] = []
        self._resampler: av.AudioResampler | None = None
        self._kind: tuple[object, ...] | None = None
        self._polarity = Polarity()
        self._next_s = Fraction(0)
        self.begin_s: Fraction | None = None
        self._held_samples = 0
        self._lock = RLock()  # pictures and sound are read in one thread and used in another

    @property
    def until_s(self) -> Fraction | None:
        """Up to when sound was heard, on the file's clock; None before there was any."""
        return None if self.begin_s is None else self._next_s

    @property
    def held_s(self) -> float:
        """Seconds of sound that are kept."""
        return self._held_samples / SAMPLE_RATE_HZ

    def is_break(self, frame: av.AudioFrame) -> bool:
        """Whether the frame's time has nothing to do with what went before."""
        return bool(self.stretches) and frame.pts is not None and is_break(time_of(frame), self._next_s)

    def add(self, frame: av.AudioFrame, *, time_s: Fraction | None = None) -> None:
        """Take what is heard from `time_s` on, or when its frame says; a frame's own `pts` is lost."""
        beat()
        with self._lock:
            if time_s is None:
                time_s = self._next_s if frame.pts is None else time_of(frame)
            self._add(frame, time_s)

    def _add(self, frame: av.AudioFrame, time_s: Fraction) -> None:
        signs = self._judge_polarity(frame)
        kind = (frame.format.name, frame.layout.name, frame.sample_rate, *signs)
        if self._resampler is None or kind != self._kind or abs(time_s - self._next_s) > _AUDIO_GAP_S:
            self.flush()
            refuse_sound(frame.sample_rate, len(frame.layout.channels))
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
            self.stretches.append((time_s, []))
            self.begin_s = time_s if self.begin_s is None else min(self.begin_s, time_s)
            self._next_s, self._kind = time_s, kind
        self._next_s += Fraction(frame.samples, frame.sample_rate)
        frame = _favour_centre(_turn_upright(frame, signs))
        # The stretch has its own clock, so the resampler must not stretch sound to fit rounded stamps.
        frame.pts = None
        self._keep(self._resampler.resample(frame))

    def _judge_polarity(self, frame: av.AudioFrame) -> tuple[float, ...]:
        """The sign of each channel of a frame, as `Polarity`; none where there is nothing to cancel."""
        if len(frame.layout.channels) < 2:
            return ()
        return tuple(self._polarity.update(_channels_of(frame), frame.sample_rate).tolist())

    def flush(self) -> None:
        with self._lock:
            if self._resampler is not None:
                self._keep(self._resampler.resample(None))
                self._resampler = None

    def _keep(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            samples = frame.to_ndarray().reshape(-1).astype(np.float32)
            self._held_samples += len(samples)
            self.stretches[-1][1].append(samples)

    def forget(self, before_s: Fraction) -> None:
        """Drop what was heard before a time, on the file's clock."""
        with self._lock:
            for place, (start_s, parts) in enumerate(self.stretches):
                while parts and start_s + Fraction(len(parts[0]), SAMPLE_RATE_HZ) <= before_s:
                    forgotten = len(parts.pop(0))
                    self._held_samples -= forgotten
                    start_s += Fraction(forgotten, SAMPLE_RATE_HZ)
                self.stretches[place] = (start_s, parts)
            # The last one goes on; of a stream that lasts for weeks there are too many to keep.
            self.stretches[:-1] = [each for each in self.stretches[:-1] if each[1]]

    def sound(self, origin_s: Fraction) -> Sound | None:
        """Place the stretches on one line; gaps are silence."""
        self.flush()
        return self.sound_so_far(origin_s)

    def sound_so_far(
        self, origin_s: Fraction, *, between_s: tuple[Fraction, Fraction] | None = None
    ) -> Sound | None:
        """As `sound`, while more is to come; only the stretches that reach into `between_s` if it is given.

        So memory does not grow with the gaps that stamps claim.
        """
        with self._lock:
            placed = [
                (sample_at(start_s - origin_s), np.concatenate(parts))
                for start_s, parts in self.stretches
                if parts and (between_s is None or _overlaps(start_s, parts, between_s))
            ]
        if not placed:
            return None
        if len(placed) == 1:
            return Sound(placed[0][1], placed[0][0])
        first = min(start for start, _ in placed)
        samples = np.zeros(max(start + len(part) for start, part in placed) - first, np.float32)
        for start, part in placed:
            samples[start - first : start - first + len(part)] = part
        return Sound(samples, first)


@dataclass(frozen=True)
class Recorded:
    """What a recorder has, as a `Hearing`; the grid's origin is None before the first picture."""

    recorder: Recorder
    origin_s: Fraction | None  # on the recorder's clock

    def heard_until(self) -> float:
        until_s = self.recorder.until_s
        if until_s is None or self.origin_s is None:
            return -math.inf
        return float((until_s - self.origin_s) * VIDEO_FPS)

    def sound_between(self, first_tick: int, end_tick: int) -> Sound | None:
        origin_s, begin_s = self.origin_s or Fraction(0), self.recorder.begin_s
        between_s = (origin_s + tick_time(first_tick - _MEL_PERIOD_TICKS), origin_s + tick_time(end_tick))
        sound = self.recorder.sound_so_far(origin_s, between_s=between_s)
        if sound is None or begin_s is None:
            return None
        return cut_sound(
            sound, first_tick, end_tick, grid_tick=sample_at(begin_s - origin_s) // SAMPLES_PER_FRAME
        )

    def forget_sound(self, before_tick: int) -> None:
        self.recorder.forget((self.origin_s or Fraction(0)) + tick_time(before_tick))


def _overlaps(
    start_s: Fraction, parts: list[NDArray[np.float32]], between_s: tuple[Fraction, Fraction]
) -> bool:
    first_s, end_s = between_s
    return start_s < end_s and start_s + Fraction(sum(map(len, parts)), SAMPLE_RATE_HZ) > first_s


def _channels_of(frame: av.AudioFrame) -> NDArray[np.floating]:
    """Samples [C, S] of a frame, in -1..1."""
    samples: NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, len(frame.layout.channels)).T
    if samples.dtype.kind == "f":
        return samples
    full_scale = 1 << (8 * samples.itemsize - 1)
    silence = full_scale if samples.dtype.kind == "u" else 0
    return (samples.astype(np.float64) - silence) / full_scale


def _turn_upright(frame: av.AudioFrame, signs: tuple[float, ...]) -> av.AudioFrame:
    """A frame whose channels of sign -1 are inverted; one without any as it is."""
    if -1.0 not in signs:
        return frame
    samples = (_channels_of(frame) * np.array(signs)[:, None]).astype(np.float32, order="C")
    turned = av.AudioFrame.from_ndarray(samples, format="fltp", layout=frame.layout)
    turned.sample_rate = frame.sample_rate
    return turned


def _favour_centre(frame: av.AudioFrame) -> av.AudioFrame:
    """Surround sound as mono, by `weigh_channels`; other frames as they are."""
    names = [channel.name for channel in frame.layout.channels]
    if len(names) < 3:
        return frame
    weights = weigh_channels(names)
    if weights is None:
        return frame
    return mono_frame(weights @ _channels_of(frame), frame.sample_rate)


def weigh_channels(names: list[str]) -> NDArray[np.float64] | None:
    """Shares of the channels in a mono mix, speech before music; None where there is no centre.

    The centre, and the others at a quarter each: without them a mix whose centre is empty would be
    silence. Six or eight channels without names stand in the order of 5.1 and 7.1.
    """
    if len(names) in _UNNAMED and set(names) == {NO_NAME}:
        names = _UNNAMED[len(names)]
    if "FC" not in names:
        return None
    shares = [1.0 if name == "FC" else 0.0 if name == "LFE" else 0.25 for name in names]
    return np.array(shares) / sum(shares)


def mono_frame(samples: NDArray[Any], rate_hz: int) -> av.AudioFrame:
    """Samples [S] as a frame without a time."""
    frame = av.AudioFrame.from_ndarray(samples.astype(np.float32)[None], format="flt", layout="mono")
    frame.sample_rate = rate_hz
    return frame


class MonoMixer:
    """Makes one channel of several without names, block by block, as `weigh_channels` and `Polarity` say."""

    def __init__(self, channels: int, rate_hz: int) -> None:
        self._weights = weigh_channels([NO_NAME] * channels)
        self._rate_hz = rate_hz
        self._polarity = Polarity()

    def mix(self, block: NDArray[np.float32]) -> av.AudioFrame:
        """The next samples [C, S] as a frame without a time."""
        upright = block * self._polarity.update(block, self._rate_hz).astype(np.float32)[:, None]
        mono = upright.mean(axis=0) if self._weights is None else self._weights @ upright
        return mono_frame(mono, self._rate_hz)


def cut_sound(sound: Sound, first_tick: int, end_tick: int, *, grid_tick: int | None = None) -> Sound | None:
    """What there is of a sound at the ticks [first_tick, end_tick); None where that is nothing.

    A little more comes before, so that mel steps meet ticks as they do for the whole of the sound: every
    fifth tick from `grid_tick` on, the one in which it begins, a mel step begins too.
    """
    if grid_tick is None:
        grid_tick = sound.first_sample // SAMPLES_PER_FRAME
    first_tick -= (first_tick - grid_tick) % _MEL_PERIOD_TICKS
    first = max(sound.first_sample, first_tick * SAMPLES_PER_FRAME)
    end = min(sound.first_sample + len(sound.samples), end_tick * SAMPLES_PER_FRAME)
    if first >= end:
        return None
    return Sound(sound.samples[first - sound.first_sample : end - sound.first_sample], first)


def loudness_db(sound: Sound, ticks: NDArray[np.int64]) -> NDArray[np.float32]:
    """Level in dBFS of the voice's band around the 40 ms from each tick on, [N] for ticks [N].

    NaN where these are not all there. What hums below the voice, however loud, does not count.
    """
    phase = -sound.first_sample % SAMPLES_PER_FRAME  # the first sample that lies on a tick
    first_tick = (sound.first_sample + phase) // SAMPLES_PER_FRAME
    whole = max(0, (len(sound.samples) - phase) // SAMPLES_PER_FRAME)
    inside = (ticks >= first_tick) & (ticks < first_tick + whole)
    levels_db = np.full(len(ticks), np.nan, np.float32)
    framed = sound.samples[phase : phase + whole * SAMPLES_PER_FRAME]
    halves = np.pad(framed, SAMPLES_PER_FRAME // 2).reshape(whole + 1, SAMPLES_PER_FRAME)
    around = np.hstack([halves[:-1], halves[1:]])[ticks[inside] - first_tick]
    spectrum = np.fft.rfft(around * _LEVEL_WINDOW)[:, _VOICE_BINS]
    power = (spectrum.real**2 + spectrum.imag**2).sum(axis=1)
    power *= 2 / (_LEVEL_SAMPLES * (_LEVEL_WINDOW**2).sum())
    levels_db[inside] = 10 * np.log10(np.maximum(power, 1e-12))
    return levels_db


def time_of(frame: av.AudioFrame) -> Fraction:
    """Presentation time in s; 0 where the frame has none."""
    return (frame.pts or 0) * (frame.time_base or Fraction(0))


def is_break(time_s: Fraction, expected_s: Fraction) -> bool:
    """Whether a time has nothing to do with the one expected: another recording begins there."""
    return not -_BREAK_BACK_S <= time_s - expected_s <= _BREAK_AHEAD_S
