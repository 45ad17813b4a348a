"""What a person can see and judge of a check: scores over time, faces, and mouths beside the sound.

B stretches of time, C offsets, S samples.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsync_cli.errors import AvsyncError
from avsync_cli.findings import Findings
from avsync_cli.glimpses import STRIP_STEP, STRIP_TICKS
from avsync_cli.offsets import leads_of, take_relative
from avsync_cli.report import Report
from avsync_cli.scoring import FacePiece
from avsync_cli.seeking import Places, open_places
from avsync_cli.sound import Sound
from avsync_cli.spec import VIDEO_FPS
from avsync_cli.timecode import Timecode
from avsync_cli.timing import lead_ms

Floats = NDArray[np.float32]

_MOST_STRETCHES = 120  # of the heat map


@dataclass(frozen=True)
class HeatMap:
    """How well each offset fits in each stretch: `fits` [B, C], `starts_s` [B], `leads_ms` [C]."""

    starts_s: NDArray[np.floating[Any]]
    stretch_s: float
    leads_ms: NDArray[np.floating[Any]]
    fits: Floats


@dataclass(frozen=True)
class Strip:
    """Mouths from `first_tick` on, one every `step` ticks, and the sound around them."""

    first_tick: int
    step: int
    mouths: list[NDArray[np.uint8]]
    sound: Sound


@dataclass(frozen=True)
class Sights:
    """`faces`: a picture, as JPEG, of some of the report's `tracks`, by their places."""

    heat: HeatMap | None
    strip: Strip | None
    faces: dict[int, bytes]
    timecode: Timecode | None


def gather_sights(report: Report, findings: Findings, path: Path, *, timecode: Timecode | None) -> Sights:
    """What was kept of the pictures, and the sound to them from the file, where that can be read."""
    pieces = [piece for place in findings.verdict.heard for piece in findings.faces[place]]
    heat = _map_heat(pieces)
    strip = None
    with suppress(AvsyncError), open_places(path, audio_stream=report.audio_stream) as places:
        strip = _cut_strip(places, pieces)
    return Sights(heat, strip, _picture_faces(findings), timecode)


def _map_heat(pieces: list[FacePiece]) -> HeatMap | None:
    if not pieces:
        return None
    ticks = np.concatenate([piece.ticks[: len(piece.scores)] for piece in pieces])
    scores = np.concatenate([piece.scores for piece in pieces])
    relative, present = take_relative(scores)
    begin_s = float(ticks.min()) / VIDEO_FPS
    length_s = float(ticks.max() + 1) / VIDEO_FPS - begin_s
    stretch_s = max(0.4, length_s / _MOST_STRETCHES)
    stretches = np.minimum(((ticks / VIDEO_FPS - begin_s) / stretch_s).astype(int), _MOST_STRETCHES - 1)
    count = int(stretches.max()) + 1
    sums, counts = np.zeros((count, scores.shape[1])), np.zeros((count, scores.shape[1]))
    np.add.at(sums, stretches, np.where(present, relative, 0.0))
    np.add.at(counts, stretches, present)
    fits = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).astype(np.float32)
    return HeatMap(
        begin_s + stretch_s * np.arange(count),
        stretch_s,
        np.array([lead_ms(lead) for lead in leads_of(scores.shape[1])]),
        fits,
    )


def _cut_strip(places: Places, pieces: list[FacePiece]) -> Strip | None:
    """The stretch in which a mouth that was listened to moves most, where all of it has sound."""
    heard = [
        piece.mouths
        for piece in pieces
        if piece.mouths is not None
        and np.isfinite(piece.loudness_db[_inside(piece, piece.mouths.first_tick)]).all()
    ]
    if not heard:
        return None
    best = max(heard, key=lambda mouths: mouths.motion)
    sound = places.sound(best.first_tick - VIDEO_FPS, best.first_tick + STRIP_TICKS + VIDEO_FPS)
    return None if sound is None else Strip(best.first_tick, STRIP_STEP, best.pictures(), sound)


def _inside(piece: FacePiece, first_tick: int) -> slice:
    return slice(first_tick - piece.first_tick, first_tick - piece.first_tick + STRIP_TICKS)


def _picture_faces(findings: Findings) -> dict[int, bytes]:
    """The picture of each face's longest piece."""
    longest = (max(face, key=lambda piece: len(piece.boxes)) for face in findings.faces)
    return {place: piece.face_jpeg for place, piece in enumerate(longest) if piece.face_jpeg}
