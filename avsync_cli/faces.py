"""Find faces and their 468 points, with MediaPipe's models and MediaPipe's arithmetic.

Shapes: picture [H, W, 3] uint8 RGB; A = 896 anchors, K = detections, T = tiles, F = faces. Coordinates are
pixels of the picture: MediaPipe's relative ones times width and height. Steps and numbers follow the graphs
of MediaPipe 0.10.21 (face_detection_short_range, face_landmark_front): results agree point by point.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from avsync_cli.pixels import Box, FramePixels, Pixels, part_of
from avsync_cli.session import open_session

Floats: TypeAlias = NDArray[np.float32]

ASSETS = Path(__file__).parent / "assets"
DETECTOR_FILE = "face_detector.onnx"
MESH_FILE = "face_mesh.onnx"
ANSWERS_FILE = "face_models.json"  # what `known_answer` compares with, for each of them

DETECTOR_SIDE = 128  # pixels of the square input
ANCHOR_LAYERS = ((8, 2), (16, 6))  # stride in input pixels, anchors at each place
KEYPOINTS = 6  # right eye, left eye, nose, mouth, right ear, left ear (of the person)
NMS_IOU = 0.3

MESH_SIDE = 192  # pixels of the square input
MESH_POINTS = 468
FACE_INPUTS = MappingProxyType(  # of each file, with their shapes after the first axis
    {
        DETECTOR_FILE: {"image": [3, DETECTOR_SIDE, DETECTOR_SIDE]},
        MESH_FILE: {"image": [3, MESH_SIDE, MESH_SIDE]},
    }
)
RIGHT_EYE_POINT, LEFT_EYE_POINT = 33, 263  # outer corners, which give the angle while tracking
ROI_SCALE = 1.5  # square region over the longer side of the face's box

WARP_BITS = 5  # the crop samples the picture at whole multiples of 1/32 pixel

SURE_SCORE = 0.8  # of a face that is not upside down
TILE_OF_SHORT_SIDE = 1 / 2  # side of a tile over the picture's short side
MAX_TILES = 64  # in one picture: up to 7:1 those of half the short side, up to 16:1 those of all of it
TILES_AT_ONCE = 4  # memory grows with them
TILE_OVERLAP = 0.35  # least overlap of neighbours: what is larger was found in the whole picture


@dataclass(frozen=True)
class Detection:
    """A face: probability, box [4] as x0, y0, x1, y1 and keypoints [6, 2], in pixels."""

    score: float
    box: Floats
    keypoints: Floats


@dataclass(frozen=True)
class Roi:
    """A square of the picture: centre and side in pixels, angle in radians, clockwise as seen."""

    center_x: float
    center_y: float
    size: float
    angle: float

    def to_picture(self) -> NDArray[np.float64]:
        """Affine map [2, 3] from the square, 0..1 from its upper left, to pixels of the picture."""
        right = self.size * np.array((math.cos(self.angle), math.sin(self.angle)))
        down = np.array((-right[1], right[0]))
        corner = np.array((self.center_x, self.center_y)) - (right + down) / 2
        return np.column_stack((right, down, corner))


class FaceModels:
    """Both models, loaded once and run on pictures of any size."""

    def __init__(self, *, threads: int = 1, assets: Path = ASSETS) -> None:
        self._detector, self._mesh = (
            open_session(assets / file, threads=threads, inputs=FACE_INPUTS[file])
            for file in (DETECTOR_FILE, MESH_FILE)
        )
        self._anchors = _anchors()

    def detect(
        self, image: Pixels, *, min_score: float = 0.5, tiles: bool = False, small: bool = False
    ) -> list[Detection]:
        """Faces of a picture, best first.

        Faces from about an eighth of the long side on are found. With `tiles`, a picture that seems to have
        none is searched again in overlapping squares (16:9: 15 of them), for faces of a twentieth and less,
        and turned by 90 degrees. It is also searched upside down, unless it surely has an upright face: a
        face upside down looks like a poor upright one. With `small`, these squares are searched beside larger
        faces, too.
        """
        height, width = image.shape[:2]
        center, side = (width / 2, height / 2), max(width, height)
        found = self._detect_in(image, [Roi(*center, side, 0.0)], min_score)
        if tiles and _best_score(found) < SURE_SCORE:
            turned = self._detect_in(image, [Roi(*center, side, math.pi)], min_score)
            if _best_score(turned) > _best_score(found):
                found = turned
        if (small or (tiles and not found)) and (rois := tile_rois(width, height)):
            others = self._detect_in(image, rois, min_score)
            found += [other for other in others if not any(_holds(each, other) for each in found)]
        for angle in (math.pi / 2, -math.pi / 2) if tiles and not found else ():
            found = found or self._detect_in(image, [Roi(*center, side, angle)], min_score)
        return found

    def _detect_in(self, image: Pixels, rois: Sequence[Roi], min_score: float) -> list[Detection]:
        parts = [
            self._detect_raw(image, rois[first : first + TILES_AT_ONCE], min_score)
            for first in range(0, len(rois), TILES_AT_ONCE)
        ]
        points, scores = zip(*parts, strict=True)
        return _merge(np.concatenate(points), np.concatenate(scores))

    def _detect_raw(self, image: Pixels, rois: Sequence[Roi], min_score: float) -> tuple[Floats, Floats]:
        """Points [K, 8, 2] in pixels of the picture and scores [K] of what is seen in the squares."""
        crops = _stack(_crop(image, roi, side=DETECTOR_SIDE, border=cv2.BORDER_CONSTANT) for roi in rois)
        boxes, logits = self._detector.run(["boxes", "logits"], {"image": crops / 127.5 - 1.0})
        scores = _sigmoid(logits)  # [T, A]
        kept = scores >= min_score
        found = [
            _set_upright(_in_picture(_decode(raw[seen], self._anchors[seen]), roi))
            for raw, seen, roi in zip(boxes, kept, rois, strict=True)
        ]
        return np.concatenate(found), scores[kept]

    def mesh(self, image: Pixels | FramePixels, rois: Sequence[Roi]) -> tuple[Floats, Floats]:
        """Landmarks [F, 468, 3] of the face in each square, z on the scale of x, and presence [F] in 0..1."""
        if not rois:
            return np.zeros((0, MESH_POINTS, 3), np.float32), np.zeros(0, np.float32)
        crops = _stack(_crop(image, roi, side=MESH_SIDE, border=cv2.BORDER_REPLICATE) for roi in rois)
        raw, presence = self._mesh.run(["landmarks", "presence"], {"image": crops / np.float32(255.0)})
        landmarks = raw / MESH_SIDE  # [F, 468, 3] in units of the square
        for face, roi in enumerate(rois):
            to_picture = roi.to_picture()
            landmarks[face, :, :2] = landmarks[face, :, :2] @ to_picture[:, :2].T + to_picture[:, 2]
            landmarks[face, :, 2] *= roi.size
        return landmarks, _sigmoid(presence)


def roi_from_detection(detection: Detection) -> Roi:
    """Where to look for the points of a detected face: its box squared, turned so that the eyes are level."""
    return _roi(detection.box.reshape(2, 2), detection.keypoints[0], detection.keypoints[1])


def roi_from_landmarks(points: Floats) -> Roi:
    """Where to look for a face in the next picture, from its points [468, 3] in this one."""
    corners = np.stack((points[:, :2].min(axis=0), points[:, :2].max(axis=0)))
    return _roi(corners, points[RIGHT_EYE_POINT], points[LEFT_EYE_POINT])


def tile_rois(width: int, height: int) -> list[Roi]:
    """Overlapping squares that cover a picture, row by row; larger ones where there would be too many.

    None where these are too many, too.
    """
    short = min(width, height)
    for side in (short * TILE_OF_SHORT_SIDE, float(short)):
        columns, rows = (_tile_centers(length, side) for length in (width, height))
        if len(columns) * len(rows) <= MAX_TILES:
            return [Roi(x, y, side, 0.0) for y in rows for x in columns]
    return []


def _tile_centers(length: int, side: float) -> list[float]:
    steps = math.ceil((length - side) / (side * (1 - TILE_OVERLAP)))
    return [float(x) for x in np.linspace(side / 2, length - side / 2, steps + 1)]


def _roi(corners: Floats, right_eye: Floats, left_eye: Floats) -> Roi:
    """Square around a box [2, 2] (upper left, lower right), its x axis parallel to the line of the eyes."""
    center = corners.mean(axis=0)
    size = ROI_SCALE * (corners[1] - corners[0]).max()
    angle = math.atan2(left_eye[1] - right_eye[1], left_eye[0] - right_eye[0])
    return Roi(float(center[0]), float(center[1]), float(size), angle)


def _crop(image: Pixels | FramePixels, roi: Roi, *, side: int, border: int) -> Pixels:
    """The square as [side, side, 3].

    Pixel i samples the square at i / side, without the half pixel that would be right: MediaPipe does so, and
    with it boxes move by a pixel or two. Fixed-point maps give MediaPipe's samples under OpenCV 4
    and 5 alike; the warps of OpenCV 5 round differently (0.05 px in a box).
    """
    to_picture = roi.to_picture()
    part = part_of(image, _bounds(roi))
    steps = np.arange(side) / side
    places = [  # x and y of each pixel, in 1/32 of a pixel of the picture: [side, side]
        np.rint(right * steps + (down * steps + corner)[:, None]).astype(np.int32) - (first << WARP_BITS)
        for (right, down, corner), first in zip(
            to_picture * (1 << WARP_BITS), (part.left, part.top), strict=True
        )
    ]
    whole = np.empty((side, side, 2), np.int16)
    for axis, place in enumerate(places):
        whole[:, :, axis] = place >> WARP_BITS
        place &= (1 << WARP_BITS) - 1
    weights = ((places[1] << WARP_BITS) + places[0]).astype(np.uint16)
    crop = cv2.remap(part.rgb, whole, weights, cv2.INTER_LINEAR, borderMode=border)
    return crop.astype(np.uint8, copy=False)


def _bounds(roi: Roi) -> Box:
    """The box of all pixels that samples of a square are made of."""
    half = roi.size / 2 * (abs(math.cos(roi.angle)) + abs(math.sin(roi.angle)))
    x0, y0 = (math.floor(center - half) - 1 for center in (roi.center_x, roi.center_y))
    x1, y1 = (math.ceil(center + half) + 2 for center in (roi.center_x, roi.center_y))
    return x0, y0, x1, y1


def _stack(crops: Iterable[Pixels]) -> Floats:
    """Crops [side, side, 3] as [F, 3, side, side], 0..255."""
    return np.stack([np.stack(cv2.split(crop)) for crop in crops]).astype(np.float32)


def _anchors() -> Floats:
    """Anchor centres [A, 2] in units of the input, layer by layer, row by row."""
    layers = []
    for stride, repeats in ANCHOR_LAYERS:
        places = DETECTOR_SIDE // stride
        row, column = np.divmod(np.arange(places * places), places)
        layers.append(np.repeat(np.stack((column, row), axis=1) + 0.5, repeats, axis=0) / places)
    return np.concatenate(layers).astype(np.float32)


def _decode(raw: Floats, anchors: Floats) -> Floats:
    """Points [K, 8, 2] in units of the input from raw [K, 16]: the box's two corners, then the keypoints."""
    pairs = raw.reshape(-1, 2 + KEYPOINTS, 2) / DETECTOR_SIDE  # centre, size, keypoints
    center, half = pairs[:, 0] + anchors, pairs[:, 1] / 2
    corners = np.stack((center - half, center + half), axis=1)
    return np.concatenate((corners, pairs[:, 2:] + anchors[:, None]), axis=1)


def _in_picture(points: Floats, roi: Roi) -> Floats:
    """Points [..., 2] of a square, in pixels of the picture."""
    to_picture = roi.to_picture().astype(np.float32)
    return points @ to_picture[:, :2].T + to_picture[:, 2]


def _set_upright(points: Floats) -> Floats:
    """Points [K, 8, 2] whose first two are the upper left and the lower right of the box, however turned."""
    corners = np.sort(points[:, :2], axis=1)
    return np.concatenate((corners, points[:, 2:]), axis=1)


def _best_score(found: Sequence[Detection]) -> float:
    return max((each.score for each in found), default=0.0)


def _holds(larger: Detection, smaller: Detection) -> bool:
    """Whether a face's centre lies in the box of another: a tile may see a part of a large face as one."""
    center = smaller.box.reshape(2, 2).mean(axis=0)
    return bool((larger.box[:2] <= center).all() and (center <= larger.box[2:]).all())


def _merge(points: Floats, scores: Floats) -> list[Detection]:
    """Weighted non-maximum suppression of points [K, 8, 2]: overlapping faces become their mean by score."""
    order = np.argsort(-scores, kind="stable")
    points, scores = points[order], scores[order]
    merged = []
    while len(scores):
        same = _overlaps(points[:, :2], points[0, :2]) > NMS_IOU
        same[0] = True  # a degenerate box overlaps nothing, not even itself
        mean = np.average(points[same], axis=0, weights=scores[same]).astype(np.float32)
        merged.append(Detection(float(scores[0]), mean[:2].reshape(4), mean[2:]))
        points, scores = points[~same], scores[~same]
    return merged


def _overlaps(boxes: Floats, box: Floats) -> Floats:
    """Intersection over union [K] of boxes [K, 2, 2] with one box [2, 2]."""
    sides = np.minimum(boxes[:, 1], box[1]) - np.maximum(boxes[:, 0], box[0])
    shared = np.clip(sides, 0, None).prod(axis=1)
    union = (boxes[:, 1] - boxes[:, 0]).prod(axis=1) + (box[1] - box[0]).prod() - shared
    overlaps: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlaps


def _sigmoid(logits: Floats) -> Floats:
    """Logistic function, written so that it cannot overflow."""
    half = np.float32(0.5)
    probabilities: Floats = half + half * np.tanh(half * logits)
    return probabilities
