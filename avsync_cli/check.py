"""The whole story: path -> passages -> faces -> windows -> scores -> offset -> report."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Unpack

import numpy as np

from avsync_cli.changes import noting_changes
from avsync_cli.confidence import Calibration
from avsync_cli.container import AUTO_STREAM, MediaInfo, parse_audio_stream
from avsync_cli.doubts import doubt_report, find_doubts, measure_coverage
from avsync_cli.errors import ConfigError, MediaError, ModelError
from avsync_cli.faces import FaceModels
from avsync_cli.findings import Findings, add_timeline, is_constant, judge_looks, report_findings
from avsync_cli.given_bytes import Video, as_file
from avsync_cli.grid import Picture
from avsync_cli.machine import count_cores
from avsync_cli.media import Media, open_media, read_sound_file, refuse_no_part
from avsync_cli.model import Student, load_student
from avsync_cli.options import CheckKeywords, CheckOptions
from avsync_cli.passages import MAX_PLACES, Chooser, Passage
from avsync_cli.precision import choose_precision
from avsync_cli.prefetch import work_ahead
from avsync_cli.ranges import choose_range, widen_looks
from avsync_cli.rates import find_steep_rate, name_rate
from avsync_cli.report import PassageReport, Report
from avsync_cli.scoring import Look, Stopwatch, look_at
from avsync_cli.seeking import open_places, starts_anew
from avsync_cli.sound import Heard, Hearing, Sound, cut_sound
from avsync_cli.speakers import AUTO, parse_speaker
from avsync_cli.spec import EVERY_S, VIDEO_FPS, WHOLE_S, Wanted
from avsync_cli.speech import VOICE_LIKENESS
from avsync_cli.survey import least_looks, take_looks
from avsync_cli.timing import first_tick_from
from avsync_cli.voices import choose_voice, find_voices

_NO_VOICE = ("no_speech", "low_confidence", "no_match")  # where another sound of the file may say more
_PICTURES_AHEAD = 2  # decoded while faces are followed in those before

Progress = Callable[[float, float | None], None]  # seconds looked at so far, and in all if known


@dataclass(frozen=True)
class Engine:
    """The loaded models; load once, check many files."""

    student: Student
    faces: FaceModels
    threads: int


@dataclass(frozen=True)
class Asked:
    """What is to be looked at, and with what; of pictures and sound that are no file, `path` is a name."""

    path: Path
    options: CheckOptions
    audio_stream: int | None
    sound: Sound | None  # that of a separate file
    engine: Engine
    calibration: Calibration
    watch: Stopwatch
    progress: Progress | None
    counter: Iterator[int] = field(default_factory=count)  # of pictures looked at before

    @property
    def full(self) -> bool:
        """Whether to look at everything: faces have no lasting number from place to place."""
        return self.options.full or isinstance(parse_speaker(str(self.options.speaker)), int)


@dataclass(frozen=True)
class Seen:
    """The looks, and how many pictures of the file were decoded for them; in places, up to `end_s`."""

    looks: list[Look]
    decoded_pictures: int
    end_s: float | None = None
    starts_anew_s: float | None = None


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
    video: Video,
    options: CheckOptions | None = None,
    *,
    engine: Engine | None = None,
    model: str | Path | None = None,
    threads: int = 0,
    precision: Wanted = "auto",
    progress: Progress | None = None,
    **keywords: Unpack[CheckKeywords],
) -> Report:
    """Check whether the mouth moves with the voice in one video: a file, its bytes, or a file open for bytes.

    Of the latter two a copy is looked at, in a private folder, which is removed (`given_bytes.as_file`).
    What is asked comes as `options`, as keywords of the same names, or both; keywords go first. The models
    are those of `engine`, or loaded as `load_engine` does. Raises MediaError, ModelError or ConfigError; an
    answer that cannot be given is a report with status "undetermined" and a reason.
    """
    options = replace(options or CheckOptions(), **keywords)
    engine = choose_engine(engine, model, threads=threads, precision=precision)
    with as_file(video) as (path, name):
        report = check_and_keep(path, options, engine, progress=progress)[0]
    return replace(report, file=name, message=report.message.replace(str(path), name))


def choose_engine(
    engine: Engine | None, model: str | Path | None, *, threads: int, precision: Wanted
) -> Engine:
    if engine is not None and (model is not None or threads or precision != "auto"):
        raise ConfigError("model, threads and precision belong to the engine: give either an engine or these")
    return engine or load_engine(model, threads=threads, precision=precision)


@noting_changes
def check_and_keep(
    path: str | Path, options: CheckOptions, engine: Engine, *, progress: Progress | None = None
) -> tuple[Report, Findings]:
    """As `check_file`, with the findings that the report sums up, for those who show them."""
    path = Path(path)
    refuse_no_part(options.start_s, options.end_s)
    watch = Stopwatch()
    calibration = require_calibration(engine)
    stream = _choose_stream(path, options)
    sound = None if options.audio is None else read_sound_file(options.audio)
    asked = Asked(path, options, stream, sound, engine, calibration, watch, progress)
    info, stream, seen = _look(asked)
    report, findings = conclude(asked, info, stream, seen)
    return _name_other_voices(report, asked, stream), findings


def require_calibration(engine: Engine) -> Calibration:
    """Raises ModelError where the engine's student has none."""
    if engine.student.calibration is None:
        raise ModelError(f"{engine.student.name}: not calibrated, so it cannot say how sure it is")
    return engine.student.calibration


def conclude(asked: Asked, info: MediaInfo, stream: int | None, seen: Seen) -> tuple[Report, Findings]:
    """The report of what was seen, and the findings that it sums up; `stream` is the number of the sound."""
    options, calibration = asked.options, asked.calibration
    speaker = parse_speaker(str(options.speaker))
    looks, findings = judge_all(seen.looks, calibration, speaker=speaker, every_s=options.every_s)
    report = report_findings(str(asked.path), info, options.limits, findings, asked.engine.student)
    doubts = find_doubts(looks, findings, calibration)
    report = _name_break(doubt_report(name_rate(report, findings), doubts, options.limits), seen)
    report = replace(
        report,
        audio_stream=stream,
        full=asked.full,
        looked_at_s=sum(look.end_tick - look.first_tick for look in seen.looks) / VIDEO_FPS,
        passages=tuple(
            PassageReport(look.first_tick / VIDEO_FPS, look.end_tick / VIDEO_FPS) for look in seen.looks
        ),
        coverage=_measure_coverage(seen, options),
        decoded_pictures=seen.decoded_pictures,
        timings_s=asked.watch.read(),
    )
    return report, findings


def judge_all(
    looks: list[Look], calibration: Calibration, *, speaker: str | int = AUTO, every_s: float = EVERY_S
) -> tuple[list[Look], Findings]:
    """The looks with the range of offsets that they are judged by, and what they say together."""
    looks = choose_range(looks, calibration)
    findings = add_timeline(judge_looks(looks, calibration, speaker=speaker), calibration, every_s=every_s)
    if is_constant(findings):
        return looks, findings
    steep = find_steep_rate(looks, calibration, speaker=speaker, every_s=every_s)
    return (looks, findings) if steep is None else (widen_looks(looks), steep)


def _choose_stream(path: Path, options: CheckOptions) -> int | None:
    """The number of the sound to check, None for the usual one; with "auto" one that has a voice."""
    stream = parse_audio_stream(options.audio_stream)
    if stream == AUTO_STREAM:
        return choose_voice(path, start_s=options.start_s, end_s=options.end_s)
    return None if stream is None else int(stream)


def _name_other_voices(report: Report, asked: Asked, stream: int | None) -> Report:
    """The report of a sound that said nothing, with the others of the file that have a voice."""
    if report.reason not in _NO_VOICE or stream is None or not asked.path.is_file():
        return report
    likeness = find_voices(asked.path, start_s=asked.options.start_s, end_s=asked.options.end_s)
    others = tuple(
        number for number, each in enumerate(likeness) if number != stream and each >= VOICE_LIKENESS
    )
    if not others:
        return report
    words = f"audio stream {others[0]} has a voice: --audio-stream {others[0]}"
    if len(others) > 1:
        words = f"audio streams {', '.join(map(str, others))} have a voice: see --audio-stream"
    return replace(report, message=f"{report.message}; {words}", other_voices=others)


def _measure_coverage(seen: Seen, options: CheckOptions) -> float:
    """Share of what was asked for that lies within reach of a look."""
    if seen.end_s is not None:
        return measure_coverage(seen.looks, options.start_s, seen.end_s)
    return 1.0


def _name_break(report: Report, seen: Seen) -> Report:
    """The report, with where the clock of joined files or of a restarted recorder starts anew."""
    at_s = seen.starts_anew_s
    if at_s is None:
        return report
    words = f"the file's clock starts anew at {at_s:.1f} s: what follows was looked at by its own clock"
    return replace(report, message=f"{report.message}; {words}", starts_anew_s=at_s)


def _look(asked: Asked) -> tuple[MediaInfo, int | None, Seen]:
    """Look at what was asked for, in places where it is long and the file leads to them: what the file
    declares, the number of the sound that was heard (None of a separate one), and what was seen.

    Raises ConfigError where it begins after the end, MediaError where there is nothing to see or hear.
    """
    with _open(asked) as media:
        info, stream = media.info, media.audio_stream if asked.sound is None else None
        _refuse_late_start(asked, info.duration_s)
        end_s = math.inf if asked.options.end_s is None else asked.options.end_s
        last_s = end_s if info.duration_s is None else min(end_s, info.duration_s)
        if asked.full or last_s <= WHOLE_S or not asked.path.is_file():
            return info, stream, _look_at_whole(asked, media)
    # Closed by now: the index of a long file takes as much memory as all else.
    seen = _look_in_places(asked, last_s)
    if seen is None:
        with _open(asked) as media:
            seen = _look_at_whole(asked, media)
    return info, stream, seen


@contextmanager
def _open(asked: Asked) -> Iterator[Media]:
    with open_media(asked.path, threads=asked.engine.threads, audio_stream=asked.audio_stream) as media:
        if asked.sound is None and not media.has_audio:
            raise MediaError(f"{asked.path}: no audio stream", "no_audio")
        yield media


def _refuse_late_start(asked: Asked, duration_s: float | None) -> None:
    if duration_s is not None and asked.options.start_s >= duration_s > 0:
        raise ConfigError(
            f"{asked.path}: from {asked.options.start_s:g} s: the video ends at {duration_s:.1f} s"
        )


def _look_at_whole(asked: Asked, media: Media) -> Seen:
    """One look at all that was asked for, in one pass. Raises MediaError."""
    pictures = media.pictures(start_s=asked.options.start_s, end_s=asked.options.end_s)
    hearing = media if asked.sound is None else Heard(asked.sound)
    look = look_with(asked, pictures, hearing, media.info.duration_s)
    if look is None:
        raise MediaError(f"{asked.path}: no sound could be decoded", "no_audio")
    return Seen([look], media.decoded_pictures, starts_anew_s=media.starts_anew_s)


def _look_in_places(asked: Asked, last_s: float) -> Seen | None:
    """Looks at passages until they are enough; None where the file does not lead to them, or steps back."""
    options, engine, sound = asked.options, asked.engine, asked.sound
    with open_places(asked.path, threads=engine.threads, audio_stream=asked.audio_stream) as places:
        if last_s == math.inf:
            last_s = places.measure_s() or 0.0
            _refuse_late_start(asked, last_s)
        if last_s <= WHOLE_S or starts_anew(asked.path):
            return None
        first_tick, end_tick = first_tick_from(options.start_s), first_tick_from(last_s)
        chooser = Chooser(
            places,
            places.sound if sound is None else partial(cut_sound, sound),
            engine.faces,
            first_tick,
            end_tick,
            range_frames=options.range_frames,
            most_places=max(MAX_PLACES, 2 * least_looks(end_tick - first_tick)),
        )
        reached = False

        def spread() -> Iterator[tuple[Look, bool]]:
            nonlocal reached
            for passage, pictures in chooser.passages():
                look = _look_at_passage(asked, passage, pictures)
                reached = True
                if look is not None and look.end_tick > 0:
                    yield look, passage.has_face

        def look_between(first_tick: int, end_tick: int) -> Look | None:
            found = chooser.find_between(first_tick, end_tick)
            return None if found is None else _look_at_passage(asked, *found)

        looks = take_looks(spread(), look_between, first_tick, end_tick, asked.calibration)
        if not reached or places.starts_anew_s is not None:
            return None
        return Seen(looks, places.decoded_pictures, last_s)


def _look_at_passage(asked: Asked, passage: Passage, pictures: Iterator[Picture]) -> Look | None:
    silence = Sound(np.zeros(0, np.float32), 0)  # which is an answer here
    return look_with(asked, pictures, Heard(passage.sound or silence), None)


def look_with(
    asked: Asked, pictures: Iterable[Picture], hearing: Hearing, duration_s: float | None
) -> Look | None:
    """As `look_at`, with what is `asked`, telling the progress."""
    return look_at(
        _watched(pictures, asked, duration_s),
        hearing,
        student=asked.engine.student,
        models=asked.engine.faces,
        range_frames=asked.options.range_frames,
        watch=asked.watch,
    )


def _watched(pictures: Iterable[Picture], asked: Asked, duration_s: float | None) -> Iterator[Picture]:
    """Pass pictures on, counting the time that is spent waiting for them and telling the progress."""
    watch, progress = asked.watch, asked.progress
    before = perf_counter()
    for picture in pictures if asked.engine.threads == 1 else work_ahead(pictures, most=_PICTURES_AHEAD):
        watch.decode += perf_counter() - before
        yield picture
        number = next(asked.counter)
        if progress is not None and number % VIDEO_FPS == 0:
            progress(number / VIDEO_FPS, duration_s)
        before = perf_counter()
    watch.decode += perf_counter() - before
