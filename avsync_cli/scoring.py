"""Looking at a passage: pictures and sound in, the scored pieces of every face out.

N ticks, V = N - 4 windows of 5 ticks. What a look leaves behind is about 300 bytes a tick and face, so
that many short looks, or one at a whole film, can be kept and judged together.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from avsync_cli.answers import agree, answer_scores
from avsync_cli.confidence import Calibration
from avsync_cli.faces import FaceModels
from avsync_cli.glimpses import Mouths, keep_mouths
from avsync_cli.grid import Picture
from avsync_cli.lips import lip_opening
from avsync_cli.mel import mel_track
from avsync_cli.model import Student
from avsync_cli.offsets import score_offsets
from avsync_cli.pulse import beat
from avsync_cli.report import Timings
from avsync_cli.sound import Hearing, Sound, cut_sound, loudness_db
from avsync_cli.spec import (
    FRAME_MS,
    MAX_RANGE_FRAMES,
    MAX_TRACK_FRAMES,
    RANGE_FRAMES,
    SOUND_REACH_TICKS,
    VIDEO_FPS,
)
from avsync_cli.speech import has_speech
from avsync_cli.timing import DELAY_STEP_MS
from avsync_cli.tracks import FaceTrack, track_faces

Floats = NDArray[np.float32]

_SETTLE_TICKS = 10 * VIDEO_FPS
_PART_WINDOWS = 116  # asked by themselves whether they fit surely
_SURE = 0.95
_MOST_NUMBERS = 1024  # of a window whose pairs take a microsecond; those of tokens take milliseconds


@dataclass(frozen=True)
class FacePiece:
    """One face over N consecutive ticks, its V windows scored against the sound.

    Pieces of one face share `face`, a number that is unique in its look. `scores` [V, C], C = 2 r + 1 for
    a range of r frames: row i belongs to the window of ticks first_tick + i .. first_tick + i + 4, column j
    to an audio lead of j - r frames, NaN where there is no sound (`scan.score_offsets`). `boxes` [N, 4] are
    x0, y0, x1, y1 in pixels of the file. `opening` [N] is how far the inner lips are apart
    (`lips.lip_opening`): its scatter is the mouth's motion. `loudness_db` [N] is the sound's level in dBFS,
    NaN where there is none. `far_scores` [V, 201] are `scores` over ±`MAX_RANGE_FRAMES` frames, where these
    do not fit surely throughout. `turned_degrees` and `yaws_degrees` as for
    `tracks.FaceTrack`, the latter None where it was not measured. `face_jpeg` and `mouths` are for those who
    show the check (`glimpses`).
    """

    face: int
    first_tick: int
    scores: Floats
    boxes: Floats
    opening: Floats
    loudness_db: Floats
    far_scores: NDArray[np.float16] | None = None
    turned_degrees: int = 0
    yaws_degrees: Floats | None = None
    face_jpeg: bytes = b""
    mouths: Mouths | None = None

    @property
    def ticks(self) -> NDArray[np.int64]:
        """The ticks [N] of the 25-fps grid, whose origin is the file's first picture."""
        return self.first_tick + np.arange(len(self.boxes))


@dataclass(frozen=True)
class Look:
    """What looking at the ticks [first_tick, end_tick) gave; without a face there are no pieces.

    `cuts` are the first ticks of the shots that begin within.
    """

    first_tick: int
    end_tick: int
    pieces: tuple[FacePiece, ...]
    cuts: tuple[int, ...] = ()


@dataclass
class Stopwatch:
    """Seconds spent on each stage, as `report.Timings`."""

    begin: float = field(default_factory=perf_counter)
    decode: float = 0.0
    faces: float = 0.0
    encode: float = 0.0
    score: float = 0.0

    def read(self) -> Timings:
        return Timings(self.decode, self.faces, self.encode, self.score, perf_counter() - self.begin)


@dataclass(frozen=True)
class Encoded:
    """A track without its crops, and its windows [V, D]."""

    face: int
    first_tick: int
    boxes: Floats
    opening: Floats
    windows: Floats
    turned_degrees: int
    yaws_degrees: Floats
    face_jpeg: bytes
    mouths: Mouths | None

    @property
    def end_tick(self) -> int:
        return self.first_tick + len(self.boxes)


@dataclass
class Desk:
    """Where encoded tracks wait for their sound, and what was made of those that have it.

    `margin_ticks` of sound around a track are waited for, no track is longer than `longest_ticks`. With
    `far`, what fits nothing is scored over ±`MAX_RANGE_FRAMES` too.
    """

    hearing: Hearing
    student: Student
    range_frames: int
    watch: Stopwatch
    margin_ticks: int
    longest_ticks: int
    far: bool = True
    first_tick: int | None = None
    end_tick: int = 0
    waiting: list[Encoded] = field(default_factory=list)
    pieces: list[FacePiece] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    late_ms: dict[int, float] = field(default_factory=dict)  # of the pictures beside their ticks

    def note(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        """Pass pictures on, and see now and then what can be scored and forgotten."""
        for picture in pictures:
            self.first_tick = picture.tick if self.first_tick is None else self.first_tick
            self.end_tick = picture.tick + 1
            if picture.late_ms:
                self.late_ms[picture.tick] = picture.late_ms
            beat()
            yield picture
            if picture.tick % _SETTLE_TICKS == 0:
                self.settle()

    def take(self, track: FaceTrack) -> None:
        """Encode a track as it ends, so that crops are never kept for the whole passage."""
        begin = perf_counter()
        windows = self.student.encode_video(track.crops, track.lips)
        opening = lip_opening(track.lips)
        self.waiting.append(
            Encoded(
                track.face,
                track.first_tick,
                track.boxes,
                opening,
                windows,
                track.turned_degrees,
                track.yaws_degrees,
                track.face_jpeg,
                keep_mouths(track.crops, opening, track.first_tick),
            )
        )
        self.watch.encode += perf_counter() - begin

    def settle(self, *, at_end: bool = False) -> None:
        """Score the tracks whose sound is known, in the order in which they ended."""
        until = math.inf if at_end else self.hearing.heard_until()
        while self.waiting and self.waiting[0].end_tick + self.margin_ticks <= until:
            self.pieces.append(self._score(self.waiting.pop(0)))
        begun = self.end_tick - self.longest_ticks  # tracks that are still followed begin here or later
        first = min([begun, *(each.first_tick for each in self.waiting)])
        self.hearing.forget_sound(first - self.margin_ticks - SOUND_REACH_TICKS)
        self.late_ms = {tick: late_ms for tick, late_ms in self.late_ms.items() if tick >= first}

    def forget(self, before_tick: int) -> None:
        """Drop what begins before a tick: of pictures that never end no more can be kept."""
        self.waiting = [each for each in self.waiting if each.first_tick >= before_tick]
        self.pieces = [piece for piece in self.pieces if piece.first_tick >= before_tick]
        self.cuts = [cut for cut in self.cuts if cut >= before_tick]

    def _score(self, each: Encoded) -> FacePiece:
        """Score a track's windows; only the sound around it is encoded, and not kept."""
        margin = self.margin_ticks
        sound = self.hearing.sound_between(each.first_tick - margin, each.end_tick + margin)
        scores = self._score_range(each, sound, self.range_frames)
        ticks = np.arange(each.first_tick, each.end_tick)
        levels_db = np.full(len(ticks), np.nan, np.float32) if sound is None else loudness_db(sound, ticks)
        piece = FacePiece(
            each.face,
            each.first_tick,
            scores,
            each.boxes,
            each.opening,
            levels_db,
            turned_degrees=each.turned_degrees,
            yaws_degrees=each.yaws_degrees,
            face_jpeg=each.face_jpeg,
            mouths=each.mouths,
        )
        if not self._needs_far(piece):
            return piece
        far = self._score_range(each, sound, MAX_RANGE_FRAMES)
        return replace(piece, far_scores=far.astype(np.float16))

    def _score_range(self, each: Encoded, sound: Sound | None, range_frames: int) -> Floats:
        """Scores [V, 2 r + 1] of a track over a range of r frames, from as much sound as that takes."""
        begin, reach = perf_counter(), range_frames + SOUND_REACH_TICKS
        near = None if sound is None else cut_sound(sound, each.first_tick - reach, each.end_tick + reach)
        mel = mel_track(near or Sound(np.zeros(0, np.float32), 0))
        mel = mel.delayed(self.student.zero_ms - self._measure_late(each))
        first = max(mel.first_tick, each.first_tick - range_frames)
        end = min(mel.first_tick + mel.ticks, each.first_tick + len(each.windows) + range_frames)
        audio = self.student.encode_audio(mel, np.arange(first, end))
        encoded = perf_counter()
        scores = score_offsets(
            each.windows,
            audio,
            first_tick_video=each.first_tick,
            first_tick_audio=first,
            score=self.student.score,
            range_frames=range_frames,
        )
        self.watch.encode += encoded - begin
        self.watch.score += perf_counter() - encoded
        return scores

    def _measure_late(self, each: Encoded) -> float:
        """By how many ms the pictures of a track come after their ticks, on average, in steps of `timing`.

        More than half a tick is a picture that stands still, and says nothing of where the others lie.
        """
        late_ms = [self.late_ms.get(tick, 0.0) for tick in range(each.first_tick, each.end_tick)]
        mean_ms = float(np.clip(late_ms, -FRAME_MS / 2, FRAME_MS / 2).mean())
        return DELAY_STEP_MS * round(mean_ms / DELAY_STEP_MS)

    def _needs_far(self, piece: FacePiece) -> bool:
        """Whether some of a track may belong to sound from further away: it may speak, and does not fit."""
        calibration = self.student.calibration
        if calibration is None or not self.far or self.range_frames == MAX_RANGE_FRAMES:
            return False
        if self.student.layout.video_width > _MOST_NUMBERS or not has_speech(piece.loudness_db):
            return False
        return not fits_surely(piece.scores, calibration)


def fits_surely(scores: Floats, calibration: Calibration) -> bool:
    """Whether every part of the scores [V, C] of a face has one offset, by itself and surely."""
    parts = np.array_split(scores, max(1, round(len(scores) / _PART_WINDOWS)))
    answers = [answer_scores(part, calibration) for part in parts]
    return all(
        answer.reason is None and answer.confidence >= _SURE and agree(answer, answers[0])
        for answer in answers
    )


def sound_margin(range_frames: int) -> int:
    """Ticks of sound around pictures that their scores may need: those of the widest range that is tried."""
    return max(range_frames, MAX_RANGE_FRAMES) + SOUND_REACH_TICKS


def look_at(
    pictures: Iterable[Picture],
    hearing: Hearing,
    *,
    student: Student,
    models: FaceModels,
    watch: Stopwatch,
    range_frames: int = RANGE_FRAMES,
) -> Look | None:
    """Find the faces of a passage and score them; None where there is no sound to score them against.

    Of pictures and sound no more than about a minute is kept, if `hearing` is as far as the pictures.
    Time that the pictures take must be counted as `watch.decode`.
    """
    desk = Desk(hearing, student, range_frames, watch, sound_margin(range_frames), MAX_TRACK_FRAMES)
    begin, before = perf_counter(), watch.decode + watch.encode + watch.score
    crop, note_cut = student.layout.crop, desk.cuts.append
    for track in track_faces(desk.note(pictures), models, crop=crop, note_cut=note_cut):
        desk.take(track)
    watch.faces += perf_counter() - begin - (watch.decode + watch.encode + watch.score - before)
    if hearing.heard_until() == -math.inf:
        return None
    desk.settle(at_end=True)
    return Look(desk.first_tick or 0, desk.end_tick, tuple(desk.pieces), tuple(desk.cuts))


def group_faces(looks: Iterable[Look]) -> list[list[FacePiece]]:
    """The pieces of each face, look by look; whoever is seen in two looks is two faces."""
    faces: dict[tuple[int, int], list[FacePiece]] = {}
    for number, look in enumerate(looks):
        for piece in look.pieces:
            faces.setdefault((number, piece.face), []).append(piece)
    return list(faces.values())
