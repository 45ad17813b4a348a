"""Face crops as the published networks take them: the lower half of a face detector's box, in colour.

N frames. A box is resized to 96 x 96 whatever its aspect, bilinearly and without antialiasing, and rows 48 ..
95 are kept: uint8 RGB [N, 48, 96, 3]. The boxes are raw, one picture's own, neither smoothed nor padded.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from avsync_cli.crops import lower_half
from avsync_cli.faces import FaceModels
from avsync_cli.grid import Picture
from avsync_cli.spec import WINDOW_FRAMES


@dataclass(frozen=True)
class FaceCrops:
    """Crops uint8 [N, 48, 96, 3] of N consecutive ticks."""

    first_tick: int
    crops: NDArray[np.uint8]


def read_face_folder(folder: Path) -> FaceCrops:
    """Crops from `0.jpg 1.jpg ...`, which are faces of any size, named by their frame at 25 fps.

    Frames in which the detector saw no face have no file: the longest stretch without a gap is taken.
    Raises ValueError where there is none of 5 frames, two files are one frame's, or a file is damaged.
    """
    pictures: dict[int, Path] = {}
    for path in sorted(folder.glob("*.jpg")):
        if path.stem.isdecimal():  # 7.jpg or 00007.jpg
            same = pictures.setdefault(int(path.stem), path)
            if same is not path:
                raise ValueError(f"{same.name} and {path.name} are the same frame")
    first, count = longest_run(sorted(pictures))
    crops = [lower_half(_read_rgb(pictures[number])) for number in range(first, first + count)]
    return FaceCrops(first, np.stack(crops))


def crop_faces(pictures: Iterable[Picture], models: FaceModels) -> FaceCrops:
    """Crops of each picture's best face, for the longest stretch in which every picture has one.

    The boxes are those of the tool's detector, which are tighter than those of S3FD that the published
    networks were trained on. Raises ValueError where there is no stretch of 5 frames.
    """
    found = {}
    for picture in pictures:
        faces = models.detect(picture.rgb)
        box = None if not faces else _cut(picture.rgb, faces[0].box)
        if box is not None:
            found[picture.tick] = lower_half(box)
    first, count = longest_run(sorted(found))
    return FaceCrops(first, np.stack([found[tick] for tick in range(first, first + count)]))


def longest_run(numbers: Sequence[int]) -> tuple[int, int]:
    """First and length of the longest stretch of consecutive numbers, given in order.

    Raises ValueError where it is shorter than a window.
    """
    best = run = (0, 0)
    for number in numbers:
        run = (run[0], run[1] + 1) if number == sum(run) else (number, 1)
        best = max(best, run, key=itemgetter(1))  # the first of several
    if best[1] < WINDOW_FRAMES:
        raise ValueError(f"no face in {WINDOW_FRAMES} frames in a row")
    return best


def _cut(rgb: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.uint8] | None:
    """The part of a box that lies inside the picture; None where nothing does."""
    x0, y0, x1, y1 = np.maximum(box, 0).astype(int)
    face = rgb[y0:y1, x0:x1]
    return face if face.size else None


def _read_rgb(path: Path) -> NDArray[np.uint8]:
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise ValueError(f"{path.name}: {error.strerror}") from error
    try:
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    except cv2.error:  # for a size that it refuses, say
        bgr = None
    if bgr is None:
        raise ValueError(f"{path.name}: not a picture that can be decoded")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
