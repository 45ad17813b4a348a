"""The whole story: path -> media -> faces -> windows -> scores -> offset -> report."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from avsync_cli.assess import Answer, answer_scores, choose_answer, has_speech
from avsync_cli.batch.limits import count_cores
from avsync_cli.errors import ConfigError, MediaError, ModelError
from avsync_cli.faces import FaceModels
from avsync_cli.media import MediaInfo, Picture, open_media, read_sound_file
from avsync_cli.mel import MelTrack, mel_track
from avsync_cli.model import Calibration, Student, load_student
from avsync_cli.precision import choose_precision
from avsync_cli.report import ModelId, Report, Timings, TrackReport, describe_lead, describe_reason
from avsync_cli.scan import score_offsets
from avsync_cli.sound import Sound
from avsync_cli.spec import DEFAULT_TOLERANCE, RANGE_FRAMES, VIDEO_FPS, Tolerance, Wanted, parse_tolerance
from avsync_cli.timing import lead_ms
from avsync_cli.tracks import FaceTrack, track_faces

Floats = NDArray[np.float32]

Progress = Callable[[float, float | None], None]  # seconds of video done, seconds in all if known


@dataclass(frozen=True)
class Engine:
    """The loaded models; load once, check many files."""

    student: Student
    faces: FaceModels
    threads: int


@dataclass
class _Face:
    """The encoded windows of one face, piece by piece; its pictures and crops are already gone."""

    pieces: list[tuple[int, Floats]] = field(default_factory=list)  # first tick, windows [V, D]
    boxes: list[Floats] = field(default_factory=list)  # [N, 4] each
    ticks: list[NDArray[np.int64]] = field(default_factory=list)  # [N] each


@dataclass
class _Stopwatch:
    """Seconds spent on each stage, as `report.Timings`."""

    begin: float = field(default_factory=perf_counter)
    decode: float = 0.0
    faces: float = 0.0
    encode: float = 0.0
    score: float = 0.0

    def read(self) -> Timings:
        return Timings(self.decode, self.faces, self.encode, self.score, perf_counter() - self.begin)


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
    model: str | Path | None = None,
    threads: int = 0,
    precision: Wanted = "auto",
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
    if engine is not None and (model is not None or threads or precision != "auto"):
        raise ConfigError("model, threads and precision belong to the engine: give either an engine or these")
    engine = engine or load_engine(model, threads=threads, precision=precision)
    calibration = engine.student.calibration
    if calibration is None:
        raise ModelError(f"{engine.student.name}: not calibrated, so it cannot say how sure it is")
    watch = _Stopwatch()
    sound = None if audio is None else read_sound_file(audio)
    with open_media(path, threads=engine.threads) as media:
        if sound is None and not media.has_audio:
            raise MediaError(f"{path}: no audio stream", "no_audio")
        pictures = _watched(media.pictures(start_s=start_s, end_s=end_s), watch, media.info, progress)
        found = track_faces(pictures, engine.faces, crop=engine.student.layout.crop)
        faces = _encode_faces(found, engine.student, watch)
        sound = sound or media.sound()
    if sound is None:
        raise MediaError(f"{path}: no sound could be decoded", "no_audio")
    scores = _score_faces(faces, sound, engine.student, watch)
    answers = [_answer(face, scored, sound, calibration) for face, scored in zip(faces, scores, strict=True)]
    spoken = [scored for scored, answer in zip(scores, answers, strict=True) if answer.reason != "no_speech"]
    together = answer_scores(np.concatenate(spoken), calibration) if len(spoken) > 1 else None
    used = choose_answer(answers, together) if answers else None
    chosen = together if used is None else answers[used]
    report = _report(path, media.info, limits, chosen, engine.student)
    tracks = tuple(_track_report(face, answer) for face, answer in zip(faces, answers, strict=True))
    return replace(report, tracks=tracks, used_track=used, timings_s=watch.read())


def _watched(
    pictures: Iterable[Picture], watch: _Stopwatch, info: MediaInfo, progress: Progress | None
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


def _encode_faces(tracks: Iterable[FaceTrack], student: Student, watch: _Stopwatch) -> list[_Face]:
    """Encode each track as it ends, so that crops are never kept for the whole file."""
    faces: dict[int, _Face] = {}
    begin = perf_counter()
    for track in tracks:
        ended = perf_counter()
        face = faces.setdefault(track.face, _Face())
        face.pieces.append((track.first_tick, student.encode_video(track.crops, track.lips)))
        face.boxes.append(track.boxes)
        face.ticks.append(track.first_tick + np.arange(len(track.crops)))
        watch.encode += perf_counter() - ended
    watch.faces = perf_counter() - begin - watch.decode - watch.encode
    return list(faces.values())


def _score_faces(faces: list[_Face], sound: Sound, student: Student, watch: _Stopwatch) -> list[Floats]:
    """Scores [V, 31] of every face's windows against the sound."""
    begin = perf_counter()
    mel = mel_track(sound)
    watch.encode += perf_counter() - begin
    return [
        np.concatenate([_score_piece(tick, windows, mel, student, watch) for tick, windows in face.pieces])
        for face in faces
    ]


def _score_piece(
    first_tick: int, windows: Floats, mel: MelTrack, student: Student, watch: _Stopwatch
) -> Floats:
    """Scores [V, 31] of a piece's windows; only the sound around it is encoded, and not kept."""
    begin = perf_counter()
    first = max(mel.first_tick, first_tick - RANGE_FRAMES)
    end = min(mel.first_tick + mel.ticks, first_tick + len(windows) + RANGE_FRAMES)
    audio = student.encode_audio(mel, np.arange(first, end))
    encoded = perf_counter()
    scores = score_offsets(
        windows, audio, first_tick_video=first_tick, first_tick_audio=first, score=student.score
    )
    watch.encode += encoded - begin
    watch.score += perf_counter() - encoded
    return scores


def _answer(face: _Face, scores: Floats, sound: Sound, calibration: Calibration) -> Answer:
    """What one face says; silence behind it is the reason before any other."""
    answer = answer_scores(scores, calibration)
    if not has_speech(sound, np.concatenate(face.ticks)):
        return replace(answer, reason="no_speech")
    return answer


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
        model=ModelId(student.name, student.sha256, student.precision),
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


def _track_report(face: _Face, answer: Answer) -> TrackReport:
    lead_frames = answer.lead_frames
    return TrackReport(
        start_s=float(face.ticks[0][0]) / VIDEO_FPS,
        end_s=float(face.ticks[-1][-1] + 1) / VIDEO_FPS,
        box=np.median(np.concatenate(face.boxes), axis=0).tolist(),
        audio_lead_ms=None if lead_frames is None else lead_ms(lead_frames),
        confidence=answer.confidence,
        curve=answer.curve.tolist(),
    )
