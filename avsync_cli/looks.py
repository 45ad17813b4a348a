"""Looking at a passage: pictures and sound in, the scored pieces of every face out.

N ticks, V = N - 4 windows of 5 ticks. What a look leaves behind is about 300 bytes a tick and face, so
that many short looks, or one at a whole film, can be kept and judged together.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from avsync_cli.faces import FaceModels
from avsync_cli.lips import lip_opening
from avsync_cli.mel import mel_track
from avsync_cli.model import Student
from avsync_cli.pictures import Picture
from avsync_cli.report import Timings
from avsync_cli.scan import score_offsets
from avsync_cli.sound import Hearing, Sound, loudness_db
from avsync_cli.spec import MAX_TRACK_FRAMES, RANGE_FRAMES, SOUND_REACH_TICKS, VIDEO_FPS
from avsync_cli.tracks import FaceTrack, track_faces

Floats = NDArray[np.float32]

_SETTLE_TICKS = 10 * VIDEO_FPS


@dataclass(frozen=True)
class FacePiece:
    """One face over N consecutive ticks, its V windows scored against the sound.

    Pieces of one face share `face`, a number that is unique in its look. `scores` [V, C], C = 2 r + 1 for
    a range of r frames: row i belongs to the window of ticks first_tick + i .. first_tick + i + 4, column j
    to an audio lead of j - r frames, NaN where there is no sound (`scan.score_offsets`). `boxes` [N, 4] are
    x0, y0, x1, y1 in pixels of the file. `opening` [N] is how far the inner lips are apart
    (`lips.lip_opening`): its scatter is the mouth's motion. `loudness_db` [N] is the sound's level in dBFS,
    NaN where there is none.
    """

    face: int
    first_tick: int
    scores: Floats
    boxes: Floats
    opening: Floats
    loudness_db: Floats

    @property
    def ticks(self) -> NDArray[np.int64]:
        """The ticks [N] of the 25-fps grid, whose origin is the file's first picture."""
        return self.first_tick + np.arange(len(self.boxes))


@dataclass(frozen=True)
class Look:
    """What looking at the ticks [first_tick, end_tick) gave; without a face there are no pieces."""

    first_tick: int
    end_tick: int
    pieces: tuple[FacePiece, ...]


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
class _Encoded:
    """A track without its crops, and its windows [V, D]."""

    face: int
    first_tick: int
    boxes: Floats
    opening: Floats
    windows: Floats

    @property
    def end_tick(self) -> int:
        return self.first_tick + len(self.boxes)


@dataclass
class _Desk:
    """Where encoded tracks wait for their sound, and what was made of those that have it."""

    hearing: Hearing
    student: Student
    range_frames: int
    watch: Stopwatch
    first_tick: int | None = None
    end_tick: int = 0
    waiting: list[_Encoded] = field(default_factory=list)
    pieces: list[FacePiece] = field(default_factory=list)

    @property
    def margin_ticks(self) -> int:
        """Of sound around a track that its scores need."""
        return self.range_frames + SOUND_REACH_TICKS

    def note(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        """Pass pictures on, and see now and then what can be scored and forgotten."""
        for picture in pictures:
            self.first_tick = picture.tick if self.first_tick is None else self.first_tick
            self.end_tick = picture.tick + 1
            yield picture
            if picture.tick % _SETTLE_TICKS == 0:
                self.settle()

    def take(self, track: FaceTrack) -> None:
        """Encode a track as it ends, so that crops are never kept for the whole passage."""
        begin = perf_counter()
        windows = self.student.encode_video(track.crops, track.lips)
        opening = lip_opening(track.lips)
        self.waiting.append(_Encoded(track.face, track.first_tick, track.boxes, opening, windows))
        self.watch.encode += perf_counter() - begin

    def settle(self, *, at_end: bool = False) -> None:
        """Score the tracks whose sound is known, in the order in which they ended."""
        until = math.inf if at_end else self.hearing.heard_until()
        while self.waiting and self.waiting[0].end_tick + self.margin_ticks <= until:
            self.pieces.append(self._score(self.waiting.pop(0)))
        begun = self.end_tick - MAX_TRACK_FRAMES  # tracks that are still followed begin here or later
        first = min([begun, *(each.first_tick for each in self.waiting)])
        self.hearing.forget_sound(first - 2 * self.margin_ticks)

    def _score(self, each: _Encoded) -> FacePiece:
        """Score a track's windows; only the sound around it is encoded, and not kept."""
        begin = perf_counter()
        margin, reach = self.margin_ticks, self.range_frames
        sound = self.hearing.sound_between(each.first_tick - margin, each.end_tick + margin)
        mel = mel_track(sound or Sound(np.zeros(0, np.float32), 0))
        first = max(mel.first_tick, each.first_tick - reach)
        end = min(mel.first_tick + mel.ticks, each.first_tick + len(each.windows) + reach)
        audio = self.student.encode_audio(mel, np.arange(first, end))
        encoded = perf_counter()
        scores = score_offsets(
            each.windows,
            audio,
            first_tick_video=each.first_tick,
            first_tick_audio=first,
            score=self.student.score,
            range_frames=reach,
        )
        self.watch.encode += encoded - begin
        self.watch.score += perf_counter() - encoded
        ticks = np.arange(each.first_tick, each.end_tick)
        levels_db = np.full(len(ticks), np.nan, np.float32) if sound is None else loudness_db(sound, ticks)
        return FacePiece(each.face, each.first_tick, scores, each.boxes, each.opening, levels_db)


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
    desk = _Desk(hearing, student, range_frames, watch)
    begin, before = perf_counter(), watch.decode + watch.encode + watch.score
    for track in track_faces(desk.note(pictures), models, crop=student.layout.crop):
        desk.take(track)
    watch.faces += perf_counter() - begin - (watch.decode + watch.encode + watch.score - before)
    if hearing.heard_until() == -math.inf:
        return None
    desk.settle(at_end=True)
    return Look(desk.first_tick or 0, desk.end_tick, tuple(desk.pieces))


def group_faces(looks: Iterable[Look]) -> list[list[FacePiece]]:
    """The pieces of each face, look by look; whoever is seen in two looks is two faces."""
    faces: dict[tuple[int, int], list[FacePiece]] = {}
    for number, look in enumerate(looks):
        for piece in look.pieces:
            faces.setdefault((number, piece.face), []).append(piece)
    return list(faces.values())
