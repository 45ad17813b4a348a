"""From pictures to face tracks: mouth crops and lip geometry of each face, tick by tick.

Detection runs rarely; between detections the mesh follows each face from its own last landmarks.
A cut ends every track. Memory is bounded: a picture is kept only until the crops that need it are
cut (half a smoothing window), and long tracks are handed on in pieces.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count

import cv2
import numpy as np
from numpy.typing import NDArray

from avsync_cli.faces import Detection, FaceModels, Roi, roi_from_detection, roi_from_landmarks
from avsync_cli.lips import KEPT_INDICES, eye_vector, lip_geometry, smooth_over_time
from avsync_cli.media import Picture
from avsync_cli.spec import (
    CROP_HEIGHT,
    CROP_WIDTH,
    CROP_WIDTH_EYE_DISTANCES,
    DETECT_EVERY_FRAMES,
    DETECT_EVERY_FRAMES_IDLE,
    MAX_TRACK_FRAMES,
    MIN_PRESENCE,
    SMOOTHING_FRAMES,
    VIDEO_FPS,
    WINDOW_FRAMES,
)

_MAX_FACES = 4  # followed at once, the largest first
_SAME_FACE_IOU = 0.3
# A cut changes the thumbnail by this much, and by so many times what its recent changes were.
_CUT_GREY_LEVELS = 20.0
_CUT_RATIO = 3.0
_CUT_MEMORY = 12  # pictures
_THUMBNAIL = (32, 18)
_LOOKAHEAD = SMOOTHING_FRAMES // 2

Box = NDArray[np.float32]


@dataclass(frozen=True)
class FaceTrack:
    """One face over N consecutive ticks.

    `face` is shared by the pieces of one face. boxes [N, 4] are x0, y0, x1, y1 in pixels of the file
    (upright); crops uint8 [N, 48, 96] are grey; lips float32 [N, 40, 3] as `lips.lip_geometry`.
    """

    face: int
    first_tick: int
    boxes: NDArray[np.float32]
    crops: NDArray[np.uint8]
    lips: NDArray[np.float32]


@dataclass(eq=False)
class _Running:
    """A track still being followed; `greys` holds the pictures whose crops are not cut yet."""

    face: int
    first_tick: int
    roi: Roi
    last_box: Box | None = None  # None until the mesh has found the face
    points: list[NDArray[np.float32]] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    greys: list[NDArray[np.uint8]] = field(default_factory=list)
    crops: list[NDArray[np.uint8]] = field(default_factory=list)

    @property
    def last_tick(self) -> int:
        return self.first_tick + len(self.points) - 1

    def add(self, landmarks: NDArray[np.float32], grey: NDArray[np.uint8], scale: float) -> None:
        self.points.append(landmarks[KEPT_INDICES])
        self.last_box = _box_of(landmarks) / scale
        self.boxes.append(self.last_box)
        self.greys.append(grey)
        self.roi = roi_from_landmarks(landmarks)
        if len(self.greys) > _LOOKAHEAD:
            self._cut_next()

    def finish(self) -> FaceTrack | None:
        """The finished track, or None where it is shorter than one window."""
        while self.greys:
            self._cut_next()
        if len(self.points) < WINDOW_FRAMES:
            return None
        lips = lip_geometry(np.stack(self.points))
        return FaceTrack(self.face, self.first_tick, np.stack(self.boxes), np.stack(self.crops), lips)

    def _cut_next(self) -> None:
        """Cut the oldest crop that is due, placed by landmarks smoothed over its neighbours."""
        index = len(self.crops)
        first = max(0, index - _LOOKAHEAD)
        nearby = np.stack(self.points[first : index + _LOOKAHEAD + 1])
        placed = smooth_over_time(nearby)[index - first]
        self.crops.append(crop_mouth(self.greys.pop(0), placed))


def track_faces(pictures: Iterable[Picture], models: FaceModels) -> Iterator[FaceTrack]:
    """Follow every face through the pictures; yield each track, or piece of one, when it ends."""
    running: list[_Running] = []
    recent: list[_Running] = []  # ended without a cut: the same face may come back
    names = count()
    changes: deque[float] = deque(maxlen=_CUT_MEMORY)
    last_thumbnail: NDArray[np.float32] | None = None
    last_tick = next_detection = -1
    for picture in pictures:
        grey = cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2GRAY).astype(np.uint8)
        thumbnail = cv2.resize(grey, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
        change = 0.0 if last_thumbnail is None else float(np.abs(thumbnail - last_thumbnail).mean())
        is_cut = change > max(_CUT_GREY_LEVELS, _CUT_RATIO * float(np.mean(changes or [0.0])))
        changes.append(change)
        if is_cut or picture.tick != last_tick + 1:
            yield from _finish(running)
            running, recent, next_detection = [], [], picture.tick
        followed = _follow(running, picture, grey, models)
        lost = [track for track in running if track not in followed]
        yield from _finish(lost)
        recent = [track for track in recent + lost if picture.tick - track.last_tick < VIDEO_FPS]
        running = followed
        if picture.tick >= next_detection or lost:
            begun = _begin(picture, models, running, recent, names)
            running = running + _follow(begun, picture, grey, models)
            next_detection = picture.tick + (DETECT_EVERY_FRAMES if running else DETECT_EVERY_FRAMES_IDLE)
        full = [track for track in running if len(track.points) >= MAX_TRACK_FRAMES]
        yield from _finish(full)
        running = [_continue(track) if track in full else track for track in running]
        last_thumbnail, last_tick = thumbnail, picture.tick
    yield from _finish(running)


def crop_mouth(grey: NDArray[np.uint8], points: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Cut the mouth [48, 96] from a grey picture [H, W]: level eyes, centred on the lips.

    `points` are the kept mesh points [P, 3] of the (smoothed) face. The crop is as wide as
    `CROP_WIDTH_EYE_DISTANCES` distances between the eyes, measured in three dimensions so that a
    turned head does not change its size.
    """
    eyes = eye_vector(points)
    scale = CROP_WIDTH / (CROP_WIDTH_EYE_DISTANCES * max(float(np.linalg.norm(eyes)), 1.0))
    # Shrinking by more than two skips pixels: cut at a multiple of the size, then average.
    multiple = max(1, int(np.ceil(0.5 / scale)))
    angle = np.arctan2(eyes[1], eyes[0])
    turn = scale * multiple * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    size = (CROP_WIDTH * multiple, CROP_HEIGHT * multiple)
    centre = points[:40, :2].mean(axis=0)
    shift = (np.array(size) - 1) / 2 - turn @ centre
    matrix = np.column_stack([turn, shift])
    crop = cv2.warpAffine(grey, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if multiple > 1:
        crop = cv2.resize(crop, (CROP_WIDTH, CROP_HEIGHT), interpolation=cv2.INTER_AREA)
    return crop.astype(np.uint8, copy=False)


def _follow(
    tracks: list[_Running], picture: Picture, grey: NDArray[np.uint8], models: FaceModels
) -> list[_Running]:
    """Add this picture to the tracks whose face is still there; return those."""
    landmarks, presence = models.mesh(picture.rgb, [track.roi for track in tracks])
    followed: list[_Running] = []
    for track, points, is_face in zip(tracks, landmarks, presence >= MIN_PRESENCE, strict=True):
        box = _box_of(points) / picture.scale
        jumped = track.last_box is not None and not _same_place(box, track)
        taken = any(_same_place(box, other) for other in followed)
        if is_face and not jumped and not taken:
            track.add(points, grey, picture.scale)
            followed.append(track)
    return followed


def _begin(
    picture: Picture,
    models: FaceModels,
    running: list[_Running],
    recent: list[_Running],
    names: Iterator[int],
) -> list[_Running]:
    """Tracks, still empty, for detected faces that no running track follows; the largest first."""
    known = [track.last_box for track in running if track.last_box is not None]
    detections = models.detect(picture.rgb, tiles=not running)
    begun: list[_Running] = []
    for detection in sorted(detections, key=_area, reverse=True):
        box = detection.box / picture.scale
        if all(_overlap(box, other) <= _SAME_FACE_IOU for other in known):
            known.append(box)
            taken = {track.face for track in running + begun}
            before = [track for track in recent if _same_place(box, track) and track.face not in taken]
            face = before[-1].face if before else next(names)
            begun.append(_Running(face, picture.tick, roi_from_detection(detection)))
    return begun[: max(0, _MAX_FACES - len(running))]


def _continue(track: _Running) -> _Running:
    return _Running(track.face, track.last_tick + 1, track.roi, track.last_box)


def _finish(tracks: list[_Running]) -> Iterator[FaceTrack]:
    for track in tracks:
        finished = track.finish()
        if finished is not None:
            yield finished


def _area(detection: Detection) -> float:
    x0, y0, x1, y1 = detection.box
    return float((x1 - x0) * (y1 - y0))


def _box_of(landmarks: NDArray[np.float32]) -> Box:
    """Box around mesh points [468, 3]: x0, y0, x1, y1."""
    return np.concatenate([landmarks[:, :2].min(axis=0), landmarks[:, :2].max(axis=0)])


def _same_place(box: Box, track: _Running) -> bool:
    return track.last_box is not None and _overlap(box, track.last_box) > _SAME_FACE_IOU


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    inner = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(inner, 0.0)))
    union = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - shared
    return shared / union if union > 0 else 0.0
