"""Where zero lies: what lips that shut and open say of a student's leads, and sets whose makers put zero.

Where lips shut for one to four pictures inside running speech and open again (p, b, m), the sound must fall
as they shut and rise as they open. Each clip is aligned by the lead that the student gives it, and the mean
delay of the sound behind the lips, over all clips, is how far the student overstates leads: less what the
exposure of a picture and the burst of the lips explain (`EXPECTED_MS`). Delays come in sets of copies as well
whose makers synchronised them; both anchors are joined by their errors.

Times are in ms, positive where the sound comes after the lips. N: pictures of a clip; T: times around an
event; S: steps of 2.5 ms.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avsync_cli.answers import answer_scores
from avsync_cli.confidence import Calibration
from avsync_cli.contract import CONTRACT_FILE
from avsync_cli.errors import ConfigError, MediaError
from avsync_cli.lips import lip_opening
from avsync_cli.model import Student
from avsync_cli.seeking import open_places
from avsync_cli.sound import Sound
from avsync_cli.spec import ARTEFACT_VERSION, FRAME_MS, SAMPLE_RATE_HZ, SOUND_REACH_TICKS
from avsync_cli.timing import DELAY_STEP_MS, lead_ms
from training.data.cache import CachedClip
from training.data.clips import load_clip
from training.data.corpus import Clip
from training.evaluation.score_clips import score_clip, student_encoders
from training.progress import Progress
from training.whole_file import write_contract

Doubles = NDArray[np.float64]

EXPECTED_MS, EXPECTED_ERROR_MS = 17.5, 7.5  # of exposure (10 to 20) and burst (about 5): standard error
COPIES_ERROR_MS = 10.0  # by which copies of a set differ among themselves, whoever made them
SHUT_SHARE, OPEN_SHARE = 0.15, 0.40  # of the range of a mouth's opening
MOST_SHUT_FRAMES = 4
NEAR_FRAMES = 4  # within which the mouth must be wide open on either side
_RANGE_PERCENTILES = (2, 98)
_LEAST_RANGE = 0.5  # in the unit of `lips.lip_opening`: a mouth that moves less tells nothing

_WINDOW, _HOP = round(0.008 * SAMPLE_RATE_HZ), round(0.0025 * SAMPLE_RATE_HZ)
_CHANGE_HOPS = 6  # 15 ms
_PRE_EMPHASIS = 0.97
STEP_MS = 1000 * _HOP / SAMPLE_RATE_HZ
LAGS_MS = np.arange(-150.0, 250.0 + STEP_MS, STEP_MS)  # [T], around an event
_SPEECH_DB = 25.0  # below the loud parts of its clip: what is less is no running speech
_SPEECH_MS = 300.0  # on either side of an event
_NEAR_MS = (-75.0, 150.0)  # further off lies the next syllable
_SMOOTH_STEPS = 17  # over which the mean of onsets is smoothed
SYNCHRONISED = ("LRS2", "LRS3")  # origins whose makers put the offset at 0 (the truth of the protocol)
MIN_COPIES = 5  # clips of a copy of such a set
MIN_EVENTS = 25  # of a source that is judged by itself
_DRAWS = 1000
_NINETY = 1.645  # standard errors that hold 90 of 100 cases


@dataclass(frozen=True)
class Closure:
    """When lips shut and when they open again, in ms from the grid's origin."""

    shut_ms: float
    open_ms: float


@dataclass(frozen=True)
class ClipEvents:
    """Onset strength around the events of a clip: sums over them, `rise` and `fall` [T]."""

    source: str
    events: int
    rise: Doubles
    fall: Doubles


@dataclass(frozen=True)
class Delay:
    """By how much the sound rises after lips open and falls after they shut, with the 90 % of a bootstrap."""

    group: str
    clips: int
    events: int
    rise_ms: float
    fall_ms: float
    low_ms: float
    high_ms: float

    @property
    def mean_ms(self) -> float:
        return (self.rise_ms + self.fall_ms) / 2


@dataclass(frozen=True)
class Measured:
    """What the clips of a corpus say: delays, and the median lead in ms and number of clips of every
    synchronised set."""

    delays: list[Delay]
    medians: dict[str, tuple[float, int]]


@dataclass(frozen=True)
class Zero:
    """A student's `zero_ms`, its standard error, and what each anchor says by itself (None: nothing)."""

    zero_ms: float
    uncertainty_ms: float
    lips_ms: float | None
    copies_ms: float | None


def find_closures(opening: Doubles, first_tick: int) -> list[Closure]:
    """Moments at which lips shut for at most four pictures between wide openings, from their opening [N].

    Crossing times lie on the straight line between two pictures.
    """
    low, high = np.percentile(opening, _RANGE_PERCENTILES) if len(opening) else (0.0, 0.0)
    if high - low < _LEAST_RANGE:
        return []
    share = (opening - low) / (high - low)
    shut = share < SHUT_SHARE
    edges = np.flatnonzero(np.diff(np.pad(shut, 1).astype(int)))
    found = []
    for first, end in edges.reshape(-1, 2).tolist():  # shut at the pictures first .. end - 1
        before, after = share[max(0, first - NEAR_FRAMES) : first], share[end : end + NEAR_FRAMES]
        if end - first > MOST_SHUT_FRAMES or not len(before) or not len(after):
            continue
        if before.max() > OPEN_SHARE and after.max() > OPEN_SHARE:
            shut_at = first - 1 + _crossing(share[first - 1], share[first])
            open_at = end - 1 + _crossing(share[end - 1], share[end])
            found.append(Closure((first_tick + shut_at) * FRAME_MS, (first_tick + open_at) * FRAME_MS))
    return found


def _crossing(before: float, after: float) -> float:
    return float((SHUT_SHARE - before) / (after - before))


def onset_strength(sound: Sound) -> tuple[Doubles, Doubles, Doubles, float]:
    """Rise, fall and level in dB of a sound every `STEP_MS`, each [S], and the time in ms of the first."""
    samples = sound.samples.astype(np.float64)
    emphasised = np.append(samples[:1], samples[1:] - _PRE_EMPHASIS * samples[:-1])
    if len(emphasised) < _WINDOW:
        return np.zeros(0), np.zeros(0), np.zeros(0), 0.0
    frames = np.lib.stride_tricks.sliding_window_view(emphasised, _WINDOW)[::_HOP]
    level_db = 10 * np.log10((frames**2).mean(axis=1) + 1e-10)
    change = np.zeros_like(level_db)
    half = _CHANGE_HOPS // 2
    change[half : len(change) - half] = level_db[_CHANGE_HOPS:] - level_db[:-_CHANGE_HOPS]
    middle_ms = 1000 * (sound.first_sample + _WINDOW / 2) / SAMPLE_RATE_HZ
    return np.maximum(change, 0), np.maximum(-change, 0), level_db, middle_ms


def gather_events(opening: Doubles, first_tick: int, sound: Sound, lead_ms: float, source: str) -> ClipEvents:
    """Onsets around the closures of a clip whose audio leads by `lead_ms`, as the student says."""
    rise, fall, level_db, first_ms = onset_strength(sound)
    first_ms += lead_ms  # where the sound belongs in the picture's time
    rises, falls, events = np.zeros(len(LAGS_MS)), np.zeros(len(LAGS_MS)), 0
    if len(level_db):
        loud_db = float(np.percentile(level_db, 95))
        for closure in find_closures(opening, first_tick):
            if _is_speech(level_db, first_ms, closure, loud_db):
                rises += _around(rise, first_ms, closure.open_ms)
                falls += _around(fall, first_ms, closure.shut_ms)
                events += 1
    return ClipEvents(source, events, rises, falls)


def _is_speech(level_db: Doubles, first_ms: float, closure: Closure, loud_db: float) -> bool:
    """Whether the voice is heard before the lips shut and after they open."""
    for begin_ms, end_ms in (
        (closure.shut_ms - _SPEECH_MS, closure.shut_ms),
        (closure.open_ms, closure.open_ms + _SPEECH_MS),
    ):
        begin, end = (round((time_ms - first_ms) / STEP_MS) for time_ms in (begin_ms, end_ms))
        if begin < 0 or end > len(level_db) or level_db[begin:end].max() < loud_db - _SPEECH_DB:
            return False
    return True


def _around(strength: Doubles, first_ms: float, event_ms: float) -> Doubles:
    places = (event_ms + LAGS_MS - first_ms) / STEP_MS
    return np.interp(places, np.arange(len(strength)), strength, left=0.0, right=0.0)


def measure_zero(
    corpus: Path, cache: Path, clips: list[tuple[Clip, CachedClip]], student: Student
) -> Measured:
    """Delays and medians over recorded clips of a corpus that the student gives an offset.

    Raises ConfigError where it is not calibrated, so that it cannot say which offsets to rely on.
    """
    if student.calibration is None:
        raise ConfigError(f"{student.name}: not calibrated")
    events: list[ClipEvents] = []
    sets: dict[str, list[float]] = defaultdict(list)
    with Progress("zero", len(clips), unit="clips") as progress:
        for clip, cached in clips:
            progress.advance(1)
            found = _clip_events(corpus, cache, cached, student, student.calibration)
            if found is None:
                continue
            events.append(found[0])
            if clip.origin.startswith(SYNCHRONISED):
                sets[f"{clip.origin}: {clip.source}"].append(found[1])
    medians = {
        name: (float(np.median(leads)), len(leads))
        for name, leads in sorted(sets.items())
        if len(leads) >= MIN_COPIES
    }
    return Measured(measure_delays(events), medians)


def _clip_events(
    corpus: Path, cache: Path, cached: CachedClip, student: Student, calibration: Calibration
) -> tuple[ClipEvents, float] | None:
    """A clip's events and its lead in ms as the tool would say it; None where there is no offset."""
    clip = load_clip(cache, cached)
    scores = score_clip(clip, student_encoders(student))
    answer = answer_scores(scores, calibration) if len(scores) else None
    if answer is None or answer.lead_frames is None or answer.reason is not None:
        return None
    lead = lead_ms(answer.lead_frames + cached.lead_frames)
    end_tick = clip.first_tick + len(clip.crops)
    try:
        with open_places(corpus / cached.file, threads=1) as places:
            sound = places.sound(clip.first_tick - SOUND_REACH_TICKS, end_tick + SOUND_REACH_TICKS)
    except MediaError:
        return None
    if sound is None:
        return None
    opening = lip_opening(clip.lips.astype(np.float32)).astype(np.float64)
    return gather_events(opening, clip.first_tick, sound, lead, cached.source), lead


def measure_delays(clips: list[ClipEvents], *, seed: int = 0) -> list[Delay]:
    """The delay over all clips with events, then of every source with `MIN_EVENTS`."""
    with_events = [clip for clip in clips if clip.events]
    sources: dict[str, list[ClipEvents]] = defaultdict(list)
    for clip in with_events:
        sources[clip.source].append(clip)
    groups = {"all": with_events} | {
        name: members
        for name, members in sorted(sources.items())
        if sum(member.events for member in members) >= MIN_EVENTS
    }
    return [_measure(name, members, seed=seed) for name, members in groups.items() if members]


def _measure(group: str, clips: list[ClipEvents], *, seed: int) -> Delay:
    rises, falls = (np.stack([getattr(clip, side) for clip in clips]) for side in ("rise", "fall"))
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(_DRAWS):
        chosen = rng.integers(len(clips), size=len(clips))
        means.append((peak_ms(rises[chosen].sum(0)) + peak_ms(falls[chosen].sum(0))) / 2)
    low, high = np.percentile(means, (5, 95))
    events = sum(clip.events for clip in clips)
    return Delay(
        group, len(clips), events, peak_ms(rises.sum(0)), peak_ms(falls.sum(0)), float(low), float(high)
    )


def peak_ms(strength: Doubles) -> float:
    """Where a mean onset strength [T] is greatest within `_NEAR_MS` of the event, refined by a parabola."""
    smooth = np.convolve(strength, np.hanning(_SMOOTH_STEPS + 2)[1:-1], mode="same")
    low_ms, high_ms = _NEAR_MS
    near = (low_ms <= LAGS_MS) & (high_ms >= LAGS_MS)
    best = int(np.where(near, smooth, -1.0).argmax())
    before, top, after = smooth[best - 1 : best + 2]
    bend = before - 2 * top + after
    shift = 0.0 if bend == 0 else 0.5 * (before - after) / bend
    return float(LAGS_MS[best] + np.clip(shift, -1, 1) * STEP_MS)


def join_anchors(measured: Measured) -> Zero:
    """A student's zero from the delay over all clips and from medians of its leads over synchronised sets.

    Each anchor counts by the inverse of its squared error. Raises ConfigError where there is neither.
    """
    everything = measured.delays[0] if measured.delays else None
    medians = [median_ms for median_ms, _ in measured.medians.values()]
    lips_ms = None if everything is None else everything.mean_ms - EXPECTED_MS
    set_ms = float(np.median(medians)) if medians else None
    anchors = []
    if everything is not None and lips_ms is not None:
        spread = (everything.high_ms - everything.low_ms) / (2 * _NINETY)
        anchors.append((lips_ms, float(np.hypot(spread, EXPECTED_ERROR_MS))))
    if set_ms is not None:
        anchors.append((set_ms, COPIES_ERROR_MS))
    if not anchors:
        raise ConfigError("neither closures of lips nor synchronised sets: nothing tells where zero is")
    weights = np.array([1 / error**2 for _, error in anchors])
    zero = float(np.average([value for value, _ in anchors], weights=weights))
    apart = float(np.std([value for value, _ in anchors]))  # anchors that disagree are less sure than each
    return Zero(zero, float(max(weights.sum() ** -0.5, apart)), lips_ms, set_ms)


def write_zero(folder: Path, zero: Zero, *, before_ms: float) -> float:
    """Put a measured zero into a student's `model.json`, whole or not at all; returns what was written.

    It was measured with leads from which `before_ms` had been taken already. What is written is a multiple
    of `DELAY_STEP_MS`, by which sound can be moved, and covers the truth in 90 of 100 cases.
    """
    declared = json.loads((folder / CONTRACT_FILE).read_text(encoding="utf-8"))
    zero_ms = DELAY_STEP_MS * round((before_ms + zero.zero_ms) / DELAY_STEP_MS)
    found = {"zero_ms": zero_ms, "zero_uncertainty_ms": round(_NINETY * zero.uncertainty_ms, 1)}
    write_contract(folder, declared | {"version": ARTEFACT_VERSION} | found)
    return zero_ms


def describe_zero(measured: Measured, zero: Zero) -> Iterator[str]:
    """Tables in Markdown, then the zero."""
    delays, medians = measured.delays, measured.medians
    yield "| source | clips | closures | sound rises after lips open | falls after they shut | mean, 90 % |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for each in delays:
        yield (
            f"| {each.group} | {each.clips} | {each.events} | {each.rise_ms:.0f} ms | {each.fall_ms:.0f} ms "
            f"| {each.mean_ms:.0f} ms ({each.low_ms:.0f} to {each.high_ms:.0f}) |"
        )
    yield ""
    yield "| synchronised set | clips | median lead |"
    yield "| --- | --- | --- |"
    for name, (median_ms, count) in medians.items():
        yield f"| {name} | {count} | {median_ms:+.0f} ms |"
    yield ""
    parts = [
        f"{words} {value:.1f} ms"
        for words, value in (("lips:", zero.lips_ms), ("synchronised sets:", zero.copies_ms))
        if value is not None
    ]
    yield f"zero_ms {zero.zero_ms:.1f} ± {zero.uncertainty_ms:.1f} ({', '.join(parts)})"
