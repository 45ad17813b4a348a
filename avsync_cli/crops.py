"""What a student sees of a face: a grey mouth with level eyes, or the lower half of the face in colour."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from avsync_cli.lips import eye_vector
from avsync_cli.pixels import Box, FramePixels, Pixels, grey_part
from avsync_cli.spec import CROP_HEIGHT, CROP_WIDTH, CROP_WIDTH_EYE_DISTANCES

_FACE_SIDE = CROP_WIDTH  # pixels of the whole face, of which the crop is the lower half
_BORDER = 3  # pixels around the crop's corners that its samples may touch


def crop_mouth(pixels: Pixels | FramePixels, points: NDArray[np.float32]) -> Pixels:
    """Cut the mouth [48, 96] from a picture: grey, level eyes, centred on the lips.

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
    half = np.abs(turn).T @ np.array(size) / 2 / (scale * multiple) ** 2 + _BORDER
    grey, corner = grey_part(pixels, _round_box(centre - half, centre + half))
    shift = (np.array(size) - 1) / 2 - turn @ (centre - corner)
    matrix = np.column_stack([turn, shift])
    crop = cv2.warpAffine(grey, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if multiple > 1:
        crop = cv2.resize(crop, (CROP_WIDTH, CROP_HEIGHT), interpolation=cv2.INTER_AREA)
    return crop.astype(np.uint8, copy=False)


def _round_box(low: NDArray[np.float64], high: NDArray[np.float64]) -> Box:
    return math.floor(low[0]), math.floor(low[1]), math.ceil(high[0]), math.ceil(high[1])


def crop_face(rgb: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Cut the lower half [48, 96, 3] of the face in a box x0, y0, x1, y1 of a picture [H, W, 3].

    Only what lies inside the picture is taken: at least one pixel, wherever the box is.
    """
    height, width = rgb.shape[:2]
    x0, y0 = (int(np.clip(edge, 0, side - 1)) for edge, side in zip(box[:2], (width, height), strict=True))
    x1, y1 = max(int(box[2]), x0 + 1), max(int(box[3]), y0 + 1)
    return lower_half(rgb[y0:y1, x0:x1])


def lower_half(face: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The crop [48, 96, 3] of a face [H, W, 3], which is squeezed into 96 x 96 first, as published."""
    resized = cv2.resize(face, (_FACE_SIDE, _FACE_SIDE), interpolation=cv2.INTER_LINEAR)
    return resized[_FACE_SIDE - CROP_HEIGHT :].astype(np.uint8, copy=False)
