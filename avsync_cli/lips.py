"""Lip geometry: the mesh's 40 lip points in the face's own frame, free of head pose and size.

Point numbers are those of MediaPipe's 468-point face mesh; x runs right and y down in the picture,
z away from the camera, all in pixels.
"""

import numpy as np
from numpy.typing import NDArray

from avsync_cli.spec import LIP_SCALE, SMOOTHING_FRAMES

Floats = NDArray[np.float32]

_CENTRE = (0, 17, 13, 14)  # outer upper, outer lower, inner upper, inner lower
_RIGHT = (61, 185, 40, 39, 37, 146, 91, 181, 84, 78, 191, 80, 81, 82, 95, 88, 178, 87)
_LEFT = (291, 409, 270, 269, 267, 375, 321, 405, 314, 308, 415, 310, 311, 312, 324, 318, 402, 317)
LIP_INDICES = np.array(_CENTRE + _RIGHT + _LEFT)  # [40]
# Where each lip point's left-right partner stands among the 40.
LIP_MIRROR = np.concatenate([np.arange(4), np.arange(22, 40), np.arange(4, 22)])

_EYE_RIGHT = (33, 133)
_EYE_LEFT = (263, 362)
_NOSE_TIP, _NOSE_BRIDGE = 1, 6
_NOSE_RIDGE = (168, 6, 197, 195, 5)
_FRAME_POINTS = (*_EYE_RIGHT, *_EYE_LEFT, _NOSE_TIP, *_NOSE_RIDGE)
# What is kept of each frame's mesh, P = 50: the lips first, then what places the face.
KEPT_INDICES = np.concatenate([LIP_INDICES, np.array(_FRAME_POINTS)])
_PLACE = {int(point): 40 + place for place, point in enumerate(_FRAME_POINTS)}


def eye_vector(points: Floats) -> Floats:
    """From the right eye's centre to the left's, in pixels: kept points [..., P, 3] -> [..., 3]."""
    right, left = ([_PLACE[point] for point in eye] for eye in (_EYE_RIGHT, _EYE_LEFT))
    vector: Floats = points[..., left, :].mean(axis=-2) - points[..., right, :].mean(axis=-2)
    return vector


def smooth_over_time(values: Floats) -> Floats:
    """Hann-weighted mean over `SMOOTHING_FRAMES` frames, shortened at the ends: [N, ...] -> [N, ...]."""
    weights = np.hanning(SMOOTHING_FRAMES + 2)[1:-1]
    flat = values.reshape(len(values), -1)
    half = SMOOTHING_FRAMES // 2
    padded = np.pad(flat, ((half, half), (0, 0)))
    present = np.pad(np.ones(len(flat)), half)
    total = sum(w * padded[i : i + len(flat)] for i, w in enumerate(weights))
    norm = sum(w * present[i : i + len(flat)] for i, w in enumerate(weights))
    smooth: Floats = (total / np.asarray(norm)[:, None]).reshape(values.shape).astype(np.float32)
    return smooth


def smooth_at(values: Floats, place: int) -> Floats:
    """What `smooth_over_time` gives at one place of values [N, ...], from those around it alone."""
    half = SMOOTHING_FRAMES // 2
    first, last = max(0, place - half), min(len(values), place + half + 1)
    weights = np.hanning(SMOOTHING_FRAMES + 2)[1:-1][first - place + half : last - place + half]
    total = sum(w * value for w, value in zip(weights, values[first:last], strict=True))
    smooth: Floats = np.asarray(total / sum(weights)).astype(np.float32)
    return smooth


def lip_geometry(points: Floats) -> Floats:
    """Kept mesh points of one face over time, [N, P, 3] in pixels -> lip geometry [N, 40, 3].

    Axes of the face: x through the eyes, y up the nose made orthogonal to x, z their cross product;
    origin on the nose ridge; unit the eye distance smoothed over time. The mean shape of the frames
    given is taken out, so that what is left is motion, not whose mouth it is.
    """
    eyes = eye_vector(points)
    nose = points[:, _PLACE[_NOSE_BRIDGE]] - points[:, _PLACE[_NOSE_TIP]]
    x = eyes / np.linalg.norm(eyes, axis=-1, keepdims=True)
    y = nose - (nose * x).sum(axis=-1, keepdims=True) * x
    y /= np.maximum(np.linalg.norm(y, axis=-1, keepdims=True), 1e-6)
    axes = np.stack([x, y, np.cross(x, y)], axis=-1)  # [N, 3, 3], columns are the axes
    origin = points[:, [_PLACE[point] for point in _NOSE_RIDGE]].mean(axis=1, keepdims=True)
    unit = smooth_over_time(np.linalg.norm(eyes, axis=-1).astype(np.float32))
    shape = (points[:, :40] - origin) @ axes / unit[:, None, None]
    geometry: Floats = ((shape - shape.mean(axis=0)) * LIP_SCALE).astype(np.float32)
    return geometry


def lip_opening(lips: Floats) -> Floats:
    """How far the inner lips are apart [N], from `lip_geometry` [N, 40, 3]: its unit, about the mean."""
    lower, upper = (_CENTRE.index(point) for point in (14, 13))
    opening: Floats = lips[:, upper, 1] - lips[:, lower, 1]
    return opening
