"""Looking at a passage: pictures and sound in, the scored pieces of every face out.

N ticks, V = N - 4 windows of 5 ticks. What a look leaves behind is about 300 bytes a tick and face, so
that many short looks, or one at a whole film, can be kept and judged together.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from avsync_cli.faces import FaceModels
from avsync_cli.lips import lip_opening
from avsync_cli.mel import MelTrack, mel_track
from avsync_cli.model import Student
from avsync_cli.pictures import Picture
from avsync_cli.report import Timings
from avsync_cli.scan import score_offsets
from avsync_cli.sound import Sound, loudness_db
from avsync_cli.spec import RANGE_FRAMES
from avsync_cli.tracks import FaceTrack, track_faces

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class FacePiece:
    """One face over N consecutive ticks, its V windows scored against the sound.

    Pieces of one face share `face`, a number that is unique in its look. `scores` [V, 31]:
    row i belongs to the window of ticks first_tick + i .. first_tick + i + 4, column j to an audio lead
    of j - 15 frames, NaN where there is no sound (`scan.score_offsets`). `boxes` [N, 4] are x0, y0, x1,
    y1 in pixels of the file. `opening` [N] is how far the inner lips are apart (`lips.lip_opening`): its
    scatter is the mouth's motion. `loudness_db` [N] is the sound's level in dBFS, NaN where there is none.
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


@dataclass
class _Seen:
    """Which ticks were passed on."""

    first_tick: int | None = None
    end_tick: int = 0

    def note(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        for picture in pictures:
            self.first_tick = picture.tick if self.first_tick is None else self.first_tick
            self.end_tick = picture.tick + 1
            yield picture


@dataclass(frozen=True)
class _Encoded:
    """A track without its crops, and its windows [V, D]."""

    face: int
    first_tick: int
    boxes: Floats
    opening: Floats
    windows: Floats


def look_at(
    pictures: Iterable[Picture],
    sound_of: Callable[[], Sound | None],
    *,
    student: Student,
    models: FaceModels,
    watch: Stopwatch,
) -> Look | None:
    """Find the faces of a passage and score them; None where there is no sound to score them against.

    `sound_of` is asked when the pictures are exhausted, because one pass over a file gives both. Time
    that the pictures take must be counted as `watch.decode`.
    """
    seen = _Seen()
    tracks = track_faces(seen.note(pictures), models, crop=student.layout.crop)
    encoded = _encode_tracks(tracks, student, watch)
    sound = sound_of()
    if sound is None:
        return None
    begin = perf_counter()
    mel = mel_track(sound)
    watch.encode += perf_counter() - begin
    pieces = tuple(_score(each, sound, mel, student, watch) for each in encoded)
    return Look(seen.first_tick or 0, seen.end_tick, pieces)


def group_faces(looks: Iterable[Look]) -> list[list[FacePiece]]:
    """The pieces of each face, look by look; whoever is seen in two looks is two faces."""
    faces: dict[tuple[int, int], list[FacePiece]] = {}
    for number, look in enumerate(looks):
        for piece in look.pieces:
            faces.setdefault((number, piece.face), []).append(piece)
    return list(faces.values())


def _encode_tracks(tracks: Iterable[FaceTrack], student: Student, watch: Stopwatch) -> list[_Encoded]:
    """Encode each track as it ends, so that crops are never kept for the whole passage."""
    encoded = []
    begin, before = perf_counter(), watch.decode + watch.encode
    for track in tracks:
        ended = perf_counter()
        windows = student.encode_video(track.crops, track.lips)
        encoded.append(_Encoded(track.face, track.first_tick, track.boxes, lip_opening(track.lips), windows))
        watch.encode += perf_counter() - ended
    watch.faces += perf_counter() - begin - (watch.decode + watch.encode - before)
    return encoded


def _score(each: _Encoded, sound: Sound, mel: MelTrack, student: Student, watch: Stopwatch) -> FacePiece:
    """Score a track's windows; only the sound around it is encoded, and not kept."""
    begin = perf_counter()
    first = max(mel.first_tick, each.first_tick - RANGE_FRAMES)
    end = min(mel.first_tick + mel.ticks, each.first_tick + len(each.windows) + RANGE_FRAMES)
    audio = student.encode_audio(mel, np.arange(first, end))
    encoded = perf_counter()
    scores = score_offsets(
        each.windows, audio, first_tick_video=each.first_tick, first_tick_audio=first, score=student.score
    )
    watch.encode += encoded - begin
    watch.score += perf_counter() - encoded
    ticks = each.first_tick + np.arange(len(each.boxes))
    return FacePiece(each.face, each.first_tick, scores, each.boxes, each.opening, loudness_db(sound, ticks))
