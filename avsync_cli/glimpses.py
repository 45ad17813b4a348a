"""What is kept of pictures while they are looked at, for those who show the check: a few kB for each face."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

STRIP_TICKS = 40  # 1.6 s
STRIP_STEP = 2  # ticks from one crop to the next
_FACE_PX = 96
_AROUND = 1.3  # side of a face's picture over the longer side of its box
_QUALITY = 80


@dataclass(frozen=True)
class Mouths:
    """Crops side by side, one every `STRIP_STEP` ticks from `first_tick` on, as one JPEG."""

    first_tick: int
    motion: float  # scatter of the mouth's opening
    jpeg: bytes

    def pictures(self) -> list[Pixels]:
        """Each crop as [H, W, 3]."""
        count = STRIP_TICKS // STRIP_STEP
        bgr = cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert bgr is not None
        rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
        return [np.asarray(part, np.uint8) for part in np.split(rgb, count, axis=1)]


def keep_mouths(crops: Pixels, opening: Floats, first_tick: int) -> Mouths | None:
    """Crops [N, H, W] or [N, H, W, 3] of the stretch in which the mouth's `opening` [N] moves most."""
    starts = range(0, len(crops) - STRIP_TICKS + 1, STRIP_TICKS // 2)
    motions = [float(np.std(opening[start : start + STRIP_TICKS])) for start in starts]
    if not motions:
        return None
    best = int(np.argmax(motions))
    chosen = crops[starts[best] : starts[best] + STRIP_TICKS : STRIP_STEP]
    return Mouths(first_tick + starts[best], motions[best], encode_jpeg(np.concatenate(chosen, axis=1)))


def picture_face(rgb: Pixels, box: Floats) -> bytes:
    """A square around a face's box in a picture [H, W, 3], as much of it as there is, as JPEG."""
    height, width = rgb.shape[:2]
    middle = (box[:2] + box[2:]) / 2
    half = _AROUND / 2 * float((box[2:] - box[:2]).max())
    x0, y0 = (max(0, round(float(edge))) for edge in middle - half)
    x1, y1 = (round(float(edge)) for edge in middle + half)
    part = rgb[y0 : min(y1, height), x0 : min(x1, width)]
    if min(part.shape[:2]) < 2:
        part = np.zeros((_FACE_PX, _FACE_PX, 3), np.uint8)
    small = cv2.resize(part, (_FACE_PX, _FACE_PX), interpolation=cv2.INTER_AREA)
    return encode_jpeg(np.asarray(small, np.uint8))


def encode_jpeg(picture: Pixels) -> bytes:
    """A grey [H, W] or RGB [H, W, 3] picture."""
    bgr = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes())
