"""From pictures to face tracks: mouth crops and lip geometry of each face, tick by tick.

Detection runs rarely; between detections the mesh follows each face from its own last landmarks.
A cut ends every track. Memory is bounded: a picture is kept only until the crops that need it are
cut (half a smoothing window), and long tracks are handed on in pieces.
Where a student sees faces and not mouths, detection runs on every picture: its boxes are what it was
trained on.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from numpy.typing import NDArray

from avsync_cli.crops import crop_face, crop_mouth
from avsync_cli.faces import Detection, FaceModels, Roi, roi_from_detection, roi_from_landmarks
from avsync_cli.glimpses import picture_face
from avsync_cli.grid import Picture
from avsync_cli.lips import KEPT_INDICES, lip_geometry, smooth_at
from avsync_cli.pixels import FramePixels, Pixels
from avsync_cli.pose import yaw_degrees
from avsync_cli.shots import CutFinder
from avsync_cli.spec import (
    CROP_DEFINITION,
    DETECT_EVERY_FRAMES,
    DETECT_EVERY_FRAMES_IDLE,
    FACE_CROP_DEFINITION,
    MAX_TRACK_FRAMES,
    MIN_PRESENCE,
    SMOOTHING_FRAMES,
    VIDEO_FPS,
    WINDOW_FRAMES,
)

_MAX_FACES = 4  # followed at once, the largest first
_SMALL_EVERY = 4  # detections, of which one looks for small faces beside large ones, too
_SAME_FACE_IOU = 0.3
_LOOKAHEAD = SMOOTHING_FRAMES // 2

Box = NDArray[np.float32]


@dataclass(frozen=True)
class FaceTrack:
    """One face over N consecutive ticks.

    `face` is shared by the pieces of one face. boxes [N, 4] are x0, y0, x1, y1 in pixels of the file
    (upright); crops uint8 are grey mouths [N, 48, 96] or RGB faces [N, 48, 96, 3] (see `crops`); lips
    float32 [N, 40, 3] as `lips.lip_geometry`. `turned_degrees` is how far it is turned
    from upright, clockwise and in quarters: 0, 90, 180 or 270. `yaws_degrees` [N] as `pose.yaw_degrees`.
    `face_jpeg` is a small picture of the face.
    """

    face: int
    first_tick: int
    boxes: NDArray[np.float32]
    crops: NDArray[np.uint8]
    lips: NDArray[np.float32]
    yaws_degrees: NDArray[np.float32]
    turned_degrees: int = 0
    face_jpeg: bytes = b""


@dataclass(eq=False)
class _Running:
    """A track still being followed; `uncut` holds the pictures whose crops are not cut yet.

    `detected` is the detector's box when it last saw the face, from 0 to 1 within the mesh's box.
    """

    face: int
    first_tick: int
    roi: Roi
    last_box: Box | None = None  # None until the mesh has found the face
    detected: Box = field(default_factory=lambda: np.array([0, 0, 1, 1], np.float32))
    points: list[NDArray[np.float32]] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    yaws_degrees: list[float] = field(default_factory=list)
    face_jpeg: bytes = b""
    uncut: list[Pixels | FramePixels] = field(default_factory=list)
    crops: list[NDArray[np.uint8]] = field(default_factory=list)

    @property
    def last_tick(self) -> int:
        return self.first_tick + len(self.points) - 1

    def add(self, landmarks: NDArray[np.float32], scale: float) -> None:
        self.points.append(landmarks[KEPT_INDICES])
        self.last_box = _box_of(landmarks) / scale
        self.boxes.append(self.last_box)
        self.yaws_degrees.append(yaw_degrees(landmarks))
        self.roi = roi_from_landmarks(landmarks)

    def add_picture(self, picture: Picture, mesh_box: Box) -> None:
        """Take a small picture of the face, once it is surely followed."""
        if len(self.points) == WINDOW_FRAMES:
            self.face_jpeg = picture_face(picture.rgb, mesh_box)

    def add_mouth(self, pixels: Pixels | FramePixels) -> None:
        """Take the mouth's crop from this picture as soon as its place is known."""
        self.uncut.append(pixels)
        if len(self.uncut) > _LOOKAHEAD:
            self._cut_next()

    def add_face(self, rgb: NDArray[np.uint8], mesh_box: Box, detected: list[Box]) -> None:
        """Cut the face in the detector's box, or where that would be if the detector has not seen it."""
        corner, size = np.tile(mesh_box[:2], 2), np.tile(np.maximum(mesh_box[2:] - mesh_box[:2], 1), 2)
        best = max(detected, key=lambda box: _overlap(box, mesh_box), default=None)
        if best is not None and _overlap(best, mesh_box) > _SAME_FACE_IOU:
            self.detected = (best - corner) / size
            self.crops.append(crop_face(rgb, best))
        else:
            self.crops.append(crop_face(rgb, self.detected * size + corner))

    def finish(self) -> FaceTrack | None:
        """The finished track, or None where it is shorter than one window."""
        while self.uncut:
            self._cut_next()
        if len(self.points) < WINDOW_FRAMES:
            return None
        lips = lip_geometry(np.stack(self.points))
        boxes, crops = np.stack(self.boxes), np.stack(self.crops)
        turned_degrees = round(math.degrees(self.roi.angle) / 90) % 4 * 90
        yaws_degrees = np.array(self.yaws_degrees, np.float32)
        return FaceTrack(
            self.face, self.first_tick, boxes, crops, lips, yaws_degrees, turned_degrees, self.face_jpeg
        )

    def _cut_next(self) -> None:
        """Cut the oldest crop that is due, placed by landmarks smoothed over its neighbours."""
        index = len(self.crops)
        first = max(0, index - _LOOKAHEAD)
        nearby = np.stack(self.points[first : index + _LOOKAHEAD + 1])
        self.crops.append(crop_mouth(self.uncut.pop(0), smooth_at(nearby, index - first)))


def track_faces(
    pictures: Iterable[Picture],
    models: FaceModels,
    *,
    crop: str = CROP_DEFINITION,
    note_cut: Callable[[int], object] = lambda _: None,
    hand_on_ticks: int | None = None,
) -> Iterator[FaceTrack]:
    """Follow every face through the pictures; yield each track, or piece of one, when it ends.

    `crop` says what is cut: mouths (`CROP_DEFINITION`) or faces (`FACE_CROP_DEFINITION`). `note_cut` hears
    the first tick of each new shot. With `hand_on_ticks` a piece of each track ends before every tick that is
    divisible by it.
    """
    running: list[_Running] = []
    recent: list[_Running] = []  # ended without a cut: the same face may come back
    names = count()
    cuts = CutFinder()
    last_tick = next_detection = -1
    detections = 0  # in this shot
    for picture in pictures:
        is_cut = cuts.is_cut(picture.pixels)
        if is_cut:
            note_cut(picture.tick)
        if is_cut or picture.tick != last_tick + 1:
            yield from _finish(running)
            running, recent, next_detection, detections = [], [], picture.tick, 0
        followed = _follow(running, picture, models, crop)
        lost = [track for track in running if track not in followed]
        yield from _finish(lost)
        recent = [track for track in recent + lost if picture.tick - track.last_tick < VIDEO_FPS]
        running = followed
        if picture.tick >= next_detection or lost:
            begun = _begin(picture, models, running, recent, names, small=detections % _SMALL_EVERY == 0)
            detections += 1
            running = running + _follow(begun, picture, models, crop)
            next_detection = picture.tick + (DETECT_EVERY_FRAMES if running else DETECT_EVERY_FRAMES_IDLE)
        due = hand_on_ticks is not None and (picture.tick + 1) % hand_on_ticks == 0
        full = [track for track in running if due or len(track.points) >= MAX_TRACK_FRAMES]
        yield from _finish(full)
        running = [_continue(track) if track in full else track for track in running]
        last_tick = picture.tick
    yield from _finish(running)


def _follow(tracks: list[_Running], picture: Picture, models: FaceModels, crop: str) -> list[_Running]:
    """Add this picture to the tracks whose face is still there; return those."""
    with_faces = bool(tracks) and crop == FACE_CROP_DEFINITION
    detected = [detection.box for detection in models.detect(picture.rgb)] if with_faces else []
    landmarks, presence = models.mesh(picture.pixels, [track.roi for track in tracks])
    followed: list[_Running] = []
    for track, points, is_face in zip(tracks, landmarks, presence >= MIN_PRESENCE, strict=True):
        box = _box_of(points) / picture.scale
        jumped = track.last_box is not None and not _same_place(box, track)
        taken = any(_same_place(box, other) for other in followed)
        if is_face and not jumped and not taken:
            track.add(points, picture.scale)
            track.add_picture(picture, _box_of(points))
            if with_faces:
                track.add_face(picture.rgb, _box_of(points), detected)
            else:
                track.add_mouth(picture.pixels)
            followed.append(track)
    return followed


def _begin(
    picture: Picture,
    models: FaceModels,
    running: list[_Running],
    recent: list[_Running],
    names: Iterator[int],
    *,
    small: bool,
) -> list[_Running]:
    """Tracks, still empty, for detected faces that no running track follows; the largest first."""
    known = [track.last_box for track in running if track.last_box is not None]
    room = len(running) < _MAX_FACES
    detections = models.detect(picture.rgb, tiles=not running, small=small and room)
    begun: list[_Running] = []
    for detection in sorted(detections, key=_area, reverse=True):
        box = detection.box / picture.scale
        if not any(_overlap(box, other) > _SAME_FACE_IOU or _has_centre(other, box) for other in known):
            known.append(box)
            taken = {track.face for track in running + begun}
            before = [track for track in recent if _same_place(box, track) and track.face not in taken]
            face = before[-1].face if before else next(names)
            begun.append(_Running(face, picture.tick, roi_from_detection(detection)))
    return begun[: max(0, _MAX_FACES - len(running))]


def _continue(track: _Running) -> _Running:
    return _Running(track.face, track.last_tick + 1, track.roi, track.last_box, track.detected)


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


def _has_centre(box: Box, other: Box) -> bool:
    """Whether the centre of another box lies in a box: a part of a large face may look like a small one."""
    centre = (other[:2] + other[2:]) / 2
    return bool((box[:2] <= centre).all() and (centre <= box[2:]).all())


def _same_place(box: Box, track: _Running) -> bool:
    return track.last_box is not None and _overlap(box, track.last_box) > _SAME_FACE_IOU


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    inner = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(inner, 0.0)))
    union = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - shared
    return shared / union if union > 0 else 0.0
