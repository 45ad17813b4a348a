"""The whole story: path -> media -> faces -> windows -> scores -> offset -> report."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from avsync_cli.assess import Answer, answer_scores, choose_answer, has_speech
from avsync_cli.errors import ConfigError, MediaError, ModelError
from avsync_cli.faces import FaceModels
from avsync_cli.looks import FacePiece, Stopwatch, group_faces, look_at
from avsync_cli.media import MediaInfo, Picture, open_media, read_sound_file
from avsync_cli.model import Calibration, Student, load_student
from avsync_cli.report import ModelId, Report, TrackReport, describe_lead, describe_reason
from avsync_cli.spec import DEFAULT_TOLERANCE, VIDEO_FPS, Tolerance, parse_tolerance
from avsync_cli.timing import lead_ms

Progress = Callable[[float, float | None], None]  # seconds of video done, seconds in all if known


@dataclass(frozen=True)
class Engine:
    """The loaded models; load once, check many files."""

    student: Student
    faces: FaceModels
    threads: int


def load_engine(model: str | Path | None = None, *, threads: int = 0) -> Engine:
    """Load the student (the bundled one by default) and the face models. Raises ModelError.

    `threads` 0 uses every core this process may run on.
    """
    threads = threads or _cores()
    return Engine(load_student(model, threads=threads), FaceModels(threads=threads), threads)


def check_file(
    path: str | Path,
    *,
    tolerance: str | Tolerance = DEFAULT_TOLERANCE,
    audio: str | Path | None = None,
    model: str | Path | None = None,
    threads: int = 0,
    engine: Engine | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    progress: Progress | None = None,
) -> Report:
    """Check whether the mouth moves with the voice in one video file.

    `audio` checks against a separate sound file, which begins with the first picture. `start_s` and
    `end_s` restrict the check to a passage. Raises MediaError, ModelError or ConfigError; an answer
    that cannot be given is a report with status "undetermined" and a reason.
    """
    limits = parse_tolerance(tolerance)
    if engine is not None and (model is not None or threads):
        raise ConfigError("model and threads belong to the engine: give either an engine or these")
    engine = engine or load_engine(model, threads=threads)
    calibration = engine.student.calibration
    if calibration is None:
        raise ModelError(f"{engine.student.name}: not calibrated, so it cannot say how sure it is")
    watch = Stopwatch()
    sound = None if audio is None else read_sound_file(audio)
    with open_media(path, threads=engine.threads) as media:
        if sound is None and not media.has_audio:
            raise MediaError(f"{path}: no audio stream", "no_audio")
        pictures = _watched(media.pictures(start_s=start_s, end_s=end_s), watch, media.info, progress)
        look = look_at(
            pictures,
            lambda: sound or media.sound(),
            student=engine.student,
            models=engine.faces,
            watch=watch,
        )
    if look is None:
        raise MediaError(f"{path}: no sound could be decoded", "no_audio")
    faces = group_faces([look])
    answers = [_answer(face, calibration) for face in faces]
    used, chosen = _choose(faces, answers, calibration)
    report = _report(path, media.info, limits, chosen, engine.student)
    tracks = tuple(_track_report(face, answer) for face, answer in zip(faces, answers, strict=True))
    return replace(report, tracks=tracks, used_track=used, timings_s=watch.read())


def _watched(
    pictures: Iterable[Picture], watch: Stopwatch, info: MediaInfo, progress: Progress | None
) -> Iterator[Picture]:
    """Pass pictures on, counting the decoder's time and telling the progress."""
    before = perf_counter()
    for picture in pictures:
        watch.decode += perf_counter() - before
        yield picture
        if progress is not None and picture.tick % VIDEO_FPS == 0:
            progress(picture.tick / VIDEO_FPS, info.duration_s)
        before = perf_counter()
    watch.decode += perf_counter() - before


def _answer(face: list[FacePiece], calibration: Calibration) -> Answer:
    """What one face says; silence behind it is the reason before any other."""
    answer = answer_scores(np.concatenate([piece.scores for piece in face]), calibration)
    if not has_speech(np.concatenate([piece.loudness_db for piece in face])):
        return replace(answer, reason="no_speech")
    return answer


def _choose(
    faces: list[list[FacePiece]], answers: list[Answer], calibration: Calibration
) -> tuple[int | None, Answer | None]:
    """The place of the face to answer from, None for all that speak together, and the answer itself."""
    if not answers:
        return None, None
    spoken = [
        piece.scores
        for face, answer in zip(faces, answers, strict=True)
        if answer.reason != "no_speech"
        for piece in face
    ]
    several = sum(answer.reason != "no_speech" for answer in answers) > 1
    together = answer_scores(np.concatenate(spoken), calibration) if several else None
    used = choose_answer(answers, together)
    return used, together if used is None else answers[used]


def _report(
    path: str | Path, info: MediaInfo, limits: Tolerance, chosen: Answer | None, student: Student
) -> Report:
    """Put the chosen answer into the words and fields of the report."""
    reason = "no_face" if chosen is None else chosen.reason
    base = Report(
        file=str(path),
        status="undetermined",
        reason=reason,
        message=f"cannot tell: {describe_reason(reason)}" if reason is not None else "",
        limits_ms=(limits.latest_ms, limits.earliest_ms),
        duration_s=info.duration_s,
        fps=info.fps,
        confidence=0.0 if chosen is None else chosen.confidence,
        curve=None if chosen is None else chosen.curve.tolist(),
        model=ModelId(student.name, student.sha256),
    )
    if reason is not None or chosen is None or chosen.lead_frames is None:
        return base
    audio_lead_ms = lead_ms(chosen.lead_frames)
    direction, words = describe_lead(audio_lead_ms, limits)
    return replace(
        base,
        status="in_sync" if limits.contains(audio_lead_ms) else "out_of_sync",
        message=words,
        audio_lead_ms=audio_lead_ms,
        audio_lead_frames=chosen.lead_frames,
        uncertainty_ms=chosen.uncertainty_ms,
        direction=direction,
    )


def _track_report(face: list[FacePiece], answer: Answer) -> TrackReport:
    lead_frames = answer.lead_frames
    return TrackReport(
        start_s=float(face[0].ticks[0]) / VIDEO_FPS,
        end_s=float(face[-1].ticks[-1] + 1) / VIDEO_FPS,
        box=np.median(np.concatenate([piece.boxes for piece in face]), axis=0).tolist(),
        audio_lead_ms=None if lead_frames is None else lead_ms(lead_frames),
        confidence=answer.confidence,
        curve=answer.curve.tolist(),
    )


def _cores() -> int:
    """The cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
