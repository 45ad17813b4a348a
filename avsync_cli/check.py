"""The whole story: path -> passages -> faces -> windows -> scores -> offset -> report."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

from avsync_cli.ahead import work_ahead
from avsync_cli.assess import is_enough
from avsync_cli.batch.limits import count_cores
from avsync_cli.errors import ConfigError, MediaError, ModelError
from avsync_cli.faces import FaceModels
from avsync_cli.findings import add_timeline, judge_looks, report_findings
from avsync_cli.looks import Look, Stopwatch, look_at
from avsync_cli.media import Media, open_media, read_sound_file, refuse_no_part
from avsync_cli.model import Calibration, Student, load_student
from avsync_cli.passages import Chooser
from avsync_cli.pictures import Picture
from avsync_cli.places import open_places
from avsync_cli.precision import choose_precision
from avsync_cli.report import PassageReport, Report
from avsync_cli.sound import Heard, Sound, cut_sound
from avsync_cli.speakers import AUTO, parse_speaker
from avsync_cli.spec import (
    DEFAULT_TOLERANCE,
    EVERY_S,
    MAX_LOOKS,
    MAX_RANGE_FRAMES,
    MIN_EVERY_S,
    MIN_PASSAGES,
    RANGE_FRAMES,
    VIDEO_FPS,
    WHOLE_S,
    Tolerance,
    Wanted,
    parse_tolerance,
)
from avsync_cli.timing import first_tick_from

_PICTURES_AHEAD = 4  # decoded while faces are followed in those before
_SILENT = ("no_speech", "no_visible_speaker")

Progress = Callable[[float, float | None], None]  # seconds of video done, seconds in all if known


@dataclass(frozen=True)
class Engine:
    """The loaded models; load once, check many files."""

    student: Student
    faces: FaceModels
    threads: int


@dataclass(frozen=True)
class _Asked:
    """What is to be looked at, and with what."""

    path: Path
    audio_stream: int | None
    start_s: float
    end_s: float | None
    sound: Sound | None  # that of a separate file
    engine: Engine
    calibration: Calibration
    range_frames: int
    watch: Stopwatch
    progress: Progress | None


@dataclass(frozen=True)
class _Seen:
    """The looks, and how many pictures of the file were decoded for them."""

    looks: list[Look]
    decoded_pictures: int


def load_engine(model: str | Path | None = None, *, threads: int = 0, precision: Wanted = "auto") -> Engine:
    """Load the student (the bundled one by default) and the face models. Raises ModelError or ConfigError.

    `threads` 0 uses every core this process may run on; `precision` is that of the student (see
    `choose_precision`).
    """
    threads = threads or count_cores()
    chosen = choose_precision(precision, model)
    student = load_student(model, threads=threads, precision=chosen)
    return Engine(student, FaceModels(threads=threads), threads)


def check_file(
    path: str | Path,
    *,
    tolerance: str | Tolerance = DEFAULT_TOLERANCE,
    audio: str | Path | None = None,
    audio_stream: int | None = None,
    model: str | Path | None = None,
    threads: int = 0,
    precision: Wanted = "auto",
    engine: Engine | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    full: bool = False,
    range_frames: int = RANGE_FRAMES,
    speaker: str | int = AUTO,
    every_s: float = EVERY_S,
    progress: Progress | None = None,
) -> Report:
    """Check whether the mouth moves with the voice in one video file.

    `audio` checks against a separate sound file, which begins with the first picture; `audio_stream`
    against the sound of that number, from 0. `start_s` and `end_s` restrict the check to a part. What
    is longer than `WHOLE_S` is looked at in places, as many as it takes, unless `full`. Offsets of
    up to `range_frames` frames are tried. `speaker` is "auto" (the faces that speak), "all" or the number
    of a face, from 1 in the order of `tracks`, which implies `full`; the timeline has a point for every
    `every_s` seconds. Raises MediaError, ModelError or ConfigError; an
    answer that cannot be given is a report with status "undetermined" and a reason.
    """
    limits = parse_tolerance(tolerance)
    if engine is not None and (model is not None or threads or precision != "auto"):
        raise ConfigError("model, threads and precision belong to the engine: give either an engine or these")
    if audio is not None and audio_stream is not None:
        raise ConfigError("audio and audio_stream are two sounds to check against: give one of them")
    refuse_no_part(start_s, end_s)
    _refuse_no_timeline(range_frames, every_s)
    speaker = parse_speaker(str(speaker))
    engine = engine or load_engine(model, threads=threads, precision=precision)
    calibration = engine.student.calibration
    if calibration is None:
        raise ModelError(f"{engine.student.name}: not calibrated, so it cannot say how sure it is")
    watch = Stopwatch()
    sound = None if audio is None else read_sound_file(audio)
    asked = _Asked(
        Path(path), audio_stream, start_s, end_s, sound, engine, calibration, range_frames, watch, progress
    )
    with open_media(path, threads=engine.threads, audio_stream=audio_stream) as media:
        if sound is None and not media.has_audio:
            raise MediaError(f"{path}: no audio stream", "no_audio")
        full = full or isinstance(speaker, int)  # faces have no lasting number from place to place
        seen = _look(asked, media, full=full)
    findings = judge_looks(seen.looks, calibration, speaker=speaker)
    findings = add_timeline(findings, calibration, every_s=every_s)
    report = report_findings(str(path), media.info, limits, findings, engine.student)
    return replace(
        report,
        full=full,
        looked_at_s=sum(look.end_tick - look.first_tick for look in seen.looks) / VIDEO_FPS,
        passages=tuple(
            PassageReport(look.first_tick / VIDEO_FPS, look.end_tick / VIDEO_FPS) for look in seen.looks
        ),
        decoded_pictures=seen.decoded_pictures,
        timings_s=watch.read(),
    )


def _refuse_no_timeline(range_frames: int, every_s: float) -> None:
    if not MIN_EVERY_S <= every_s < math.inf:
        raise ConfigError(f"every {every_s:g} s: a timeline needs stretches of {MIN_EVERY_S:g} s and more")
    if not RANGE_FRAMES <= range_frames <= MAX_RANGE_FRAMES:
        raise ConfigError(f"range {range_frames}: must be {RANGE_FRAMES} to {MAX_RANGE_FRAMES} frames")


def _look(asked: _Asked, media: Media, *, full: bool) -> _Seen:
    """Look at what was asked for, in places where it is long and the file leads to them.

    Raises ConfigError where it begins after the end.
    """
    duration_s = media.info.duration_s
    _refuse_late_start(asked, duration_s)
    last_s = min(*(math.inf if end_s is None else end_s for end_s in (asked.end_s, duration_s)))
    in_places = not full and last_s > WHOLE_S and asked.path.is_file()
    return (_look_in_places(asked, last_s) if in_places else None) or _look_at_whole(asked, media)


def _refuse_late_start(asked: _Asked, duration_s: float | None) -> None:
    if duration_s is not None and asked.start_s >= duration_s > 0:
        raise ConfigError(f"{asked.path}: from {asked.start_s:g} s: the video ends at {duration_s:.1f} s")


def _look_at_whole(asked: _Asked, media: Media) -> _Seen:
    """One look at all that was asked for, in one pass. Raises MediaError."""
    pictures = media.pictures(start_s=asked.start_s, end_s=asked.end_s)
    look = look_at(
        _watched(pictures, asked, media.info.duration_s),
        media if asked.sound is None else Heard(asked.sound),
        student=asked.engine.student,
        models=asked.engine.faces,
        range_frames=asked.range_frames,
        watch=asked.watch,
    )
    if look is None:
        raise MediaError(f"{asked.path}: no sound could be decoded", "no_audio")
    return _Seen([look], media.decoded_pictures)


def _look_in_places(asked: _Asked, last_s: float) -> _Seen | None:
    """Looks at passages until they are enough; None where the file does not lead to them."""
    engine, sound = asked.engine, asked.sound
    looks: list[Look] = []
    reached = False
    with open_places(asked.path, threads=engine.threads, audio_stream=asked.audio_stream) as places:
        if last_s == math.inf:
            last_s = places.measure_s() or 0.0
            _refuse_late_start(asked, last_s)
        if last_s <= WHOLE_S:
            return None
        hear = places.sound if sound is None else partial(cut_sound, sound)
        chooser = Chooser(
            places,
            hear,
            engine.faces,
            first_tick_from(asked.start_s),
            first_tick_from(last_s),
            range_frames=asked.range_frames,
        )
        for passage, pictures in chooser.passages():
            look = look_at(
                _watched(pictures, asked, None),
                Heard(passage.sound or Sound(np.zeros(0, np.float32), 0)),  # silence is an answer here
                student=engine.student,
                models=engine.faces,
                range_frames=asked.range_frames,
                watch=asked.watch,
            )
            reached = True
            looks += [] if look is None or look.end_tick == 0 else [look]
            if len(looks) == MAX_LOOKS or _is_enough(looks, asked.calibration):
                break
        return _Seen(looks, places.decoded_pictures) if reached else None


def _watched(pictures: Iterable[Picture], asked: _Asked, duration_s: float | None) -> Iterator[Picture]:
    """Pass pictures on, counting the time that is spent waiting for them and telling the progress."""
    watch, progress = asked.watch, asked.progress
    before = perf_counter()
    for picture in pictures if asked.engine.threads == 1 else work_ahead(pictures, most=_PICTURES_AHEAD):
        watch.decode += perf_counter() - before
        yield picture
        if progress is not None and picture.tick % VIDEO_FPS == 0:
            progress(picture.tick / VIDEO_FPS, duration_s)
        before = perf_counter()
    watch.decode += perf_counter() - before


def _is_enough(looks: list[Look], calibration: Calibration) -> bool:
    """Whether the looks so far answer the question; those without a face or speech do not count."""
    if len(looks) < MIN_PASSAGES:
        return False
    alone = [judge_looks([look], calibration).verdict.answer for look in looks]
    speaking = [answer for answer in alone if answer is not None and answer.reason not in _SILENT]
    return is_enough(judge_looks(looks, calibration).verdict.answer, speaking)
