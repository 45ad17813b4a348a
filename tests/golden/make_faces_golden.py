"""Record what MediaPipe itself says about the portrait, as the reference of tests/test_faces.py.

Run it in an environment of its own, never in avsync's (mediapipe pins numpy<2 and brings a second OpenCV):

    python3.11 -m venv mpvenv
    mpvenv/bin/pip install mediapipe==0.10.21
    mpvenv/bin/python tests/golden/make_faces_golden.py

It reads portrait.jpg, writes the two variants (turned, scaled, shifted on a canvas that is not square) and
faces.npz. For each picture NAME the file holds, in pixels of that picture:

    NAME_score      []         probability of the detection
    NAME_box        [4]        x0, y0, x1, y1
    NAME_keypoints  [6, 2]
    NAME_landmarks  [468, 3]   face mesh on a still picture: region from the detection
    NAME_tracked    [468, 3]   second look at the same picture: region from the landmarks of the first

With --portrait-from, portrait.jpg itself is cut anew from astronaut.png of the scikit-image wheel. With
--pictures and --output it records other pictures in another file, and writes nothing else: so does
`pytest -m mediapipe`.
"""

import argparse
from pathlib import Path

import cv2
import mediapipe as mp
import numpy as np

HERE = Path(__file__).parent
CROP = (slice(0, 320), slice(64, 384))  # head and shoulders in the 512 x 512 astronaut.png
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 90]
# Turn in degrees (counter-clockwise), scale, centre of the portrait on the canvas, canvas (width, height).
VARIANTS = {
    "turned_left": (24.0, 1.6, (380.0, 230.0), (640, 360)),
    "turned_right": (-35.0, 1.3, (130.0, 290.0), (270, 480)),
}
PICTURES = ("portrait", *VARIANTS)


def read_picture(path: Path) -> np.ndarray:
    """BGR [H, W, 3]."""
    picture = cv2.imread(str(path))
    if picture is None:
        raise FileNotFoundError(path)
    return picture


def write_portrait(astronaut: Path) -> None:
    picture = read_picture(astronaut)
    cv2.imwrite(str(HERE / "portrait.jpg"), picture[CROP], JPEG)


def write_variants() -> None:
    portrait = read_picture(HERE / "portrait.jpg")
    height, width = portrait.shape[:2]
    for name, (turn, scale, center, canvas) in VARIANTS.items():
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn, scale)
        matrix[:, 2] += np.array(center) - (width / 2, height / 2)
        variant = cv2.warpAffine(portrait, matrix, canvas, borderValue=(90, 110, 100))
        cv2.imwrite(str(HERE / f"{name}.jpg"), variant, JPEG)


def detection(image: np.ndarray) -> dict[str, np.ndarray]:
    """Score, box and keypoints of the one face."""
    size = np.array(image.shape[1::-1])
    with mp.solutions.face_detection.FaceDetection(
        model_selection=0, min_detection_confidence=0.5
    ) as detector:
        (found,) = detector.process(image).detections
    relative = found.location_data.relative_bounding_box
    corner = np.array((relative.xmin, relative.ymin))
    extent = np.array((relative.width, relative.height))
    corners = np.stack((corner, corner + extent))
    keypoints = np.array([(point.x, point.y) for point in found.location_data.relative_keypoints])
    return {
        "score": np.float32(found.score[0]),
        "box": (corners * size).reshape(4),
        "keypoints": keypoints * size,
    }


def landmarks(image: np.ndarray, *, looks: int) -> np.ndarray:
    """Points [468, 3] after `looks` looks at the picture; from the second look on the face is tracked."""
    height, width = image.shape[:2]
    settings = {"static_image_mode": looks == 1, "refine_landmarks": False, "max_num_faces": 1}
    with mp.solutions.face_mesh.FaceMesh(**settings) as mesh:
        results = [mesh.process(image) for _ in range(looks)]
    (face,) = results[-1].multi_face_landmarks
    return np.array([(point.x * width, point.y * height, point.z * width) for point in face.landmark])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--portrait-from", type=Path, metavar="ASTRONAUT_PNG")
    parser.add_argument("--pictures", type=Path, nargs="+", metavar="PICTURE")
    parser.add_argument("--output", type=Path, default=HERE / "faces.npz")
    options = parser.parse_args()
    if options.pictures:
        record(options.pictures, options.output)
        return
    if options.portrait_from:
        write_portrait(options.portrait_from)
    write_variants()
    record([HERE / f"{name}.jpg" for name in PICTURES], options.output)


def record(pictures: list[Path], output: Path) -> None:
    """Write what MediaPipe finds in each picture; the values of NAME.jpg or NAME.png are called NAME_..."""
    values: dict[str, np.ndarray] = {}
    for path in pictures:
        image = cv2.cvtColor(read_picture(path), cv2.COLOR_BGR2RGB)
        seen = detection(image)
        seen |= {"landmarks": landmarks(image, looks=1), "tracked": landmarks(image, looks=2)}
        values |= {f"{path.stem}_{key}": np.asarray(value, np.float32) for key, value in seen.items()}
    np.savez_compressed(output, **values)  # type: ignore[arg-type]  # its stub takes the arrays for options


if __name__ == "__main__":
    main()
