"""The portrait turned to the side by a known angle: its own mesh, and the head around it, painted anew."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray
from talking import PORTRAIT

from avsync_cli.faces import FaceModels, roi_from_detection, roi_from_landmarks

_GRID = 15  # points on each side, of what is around the face
_OUTSIDE_PX = 6
_CHEEKS = (234, 454)
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def look_at_face(models: FaceModels, rgb: Pixels) -> Floats:
    """The mesh points [468, 3] of the only face of a picture."""
    points: Floats = models.mesh(rgb, [roi_from_detection(models.detect(rgb, min_score=0.3)[0])])[0][0]
    for _ in range(10):  # as a face is followed from picture to picture
        points = models.mesh(rgb, [roi_from_landmarks(points)])[0][0]
    return points


class TurnedPortrait:
    """Paints the portrait as if the head had turned and the camera stood still (parallel projection)."""

    def __init__(self, models: FaceModels) -> None:
        portrait = cv2.imread(str(PORTRAIT))
        assert portrait is not None
        self.rgb = np.asarray(cv2.cvtColor(portrait, cv2.COLOR_BGR2RGB), np.uint8)
        self.face = look_at_face(models, self.rgb)
        self.points = np.concatenate([self.face, self._surroundings()])
        self.triangles = self._triangulate()

    def turn(self, yaw: float, *, pitch: float = 0.0, roll: float = 0.0) -> Pixels:
        """Angles in degrees; `yaw` is positive towards the right of the picture, `roll` clockwise."""
        centre = self.face.mean(axis=0)
        turned = (self.points - centre) @ _rotation(-yaw, pitch, roll).T + centre
        painted = np.full_like(self.rgb, 128)
        for triangle in self.triangles[np.argsort(-turned[self.triangles, 2].mean(axis=1))]:
            source, target = (corners[triangle, :2].astype(np.float32) for corners in (self.points, turned))
            if _area(source) * _area(target) > 0:  # else it is seen from behind
                self._paint(painted, source, target)
        return painted

    def _paint(self, painted: Pixels, source: Floats, target: Floats) -> None:
        height, width = painted.shape[:2]
        x, y, w, h = cv2.boundingRect(target)
        x0, y0, x1, y1 = max(0, x), max(0, y), min(width, x + w + 1), min(height, y + h + 1)
        if x1 <= x0 or y1 <= y0:
            return
        inside = target - np.array([x0, y0], np.float32)
        part = cv2.warpAffine(
            self.rgb,
            cv2.getAffineTransform(source, inside),
            (x1 - x0, y1 - y0),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillConvexPoly(mask, np.round(inside * 16).astype(np.int32), 255, shift=4)
        painted[y0:y1, x0:x1][mask > 0] = part[mask > 0]

    def _surroundings(self) -> Floats:
        """Points of hair, neck and what is behind, the further back the further from the face."""
        hull = cv2.convexHull(self.face[:, :2].astype(np.float32))
        height, width = self.rgb.shape[:2]
        half = (self.face[_CHEEKS[1], 0] - self.face[_CHEEKS[0], 0]) / 2
        middle, back = self.face[:, :2].mean(axis=0), self.face[list(_CHEEKS), 2].mean()
        around = []
        for x in np.linspace(2, width - 3, _GRID):
            for y in np.linspace(2, height - 3, _GRID):
                if cv2.pointPolygonTest(hull, (float(x), float(y)), True) < -_OUTSIDE_PX:
                    beyond = max(0.0, math.hypot(x - middle[0], y - middle[1]) / half - 1)
                    around.append((x, y, back + half * beyond / 2))
        return np.array(around, np.float32)

    def _triangulate(self) -> NDArray[np.int64]:
        height, width = self.rgb.shape[:2]
        plane = cv2.Subdiv2D((0, 0, width, height))
        numbers = {}
        for number, (x, y) in enumerate(self.points[:, :2].tolist()):
            plane.insert((x, y))
            numbers[round(x, 2), round(y, 2)] = number
        corners = np.round(np.asarray(plane.getTriangleList(), float), 2).reshape(-1, 3, 2)
        found = [[numbers.get((x, y)) for x, y in each] for each in corners.tolist()]
        return np.array([each for each in found if None not in each], np.int64)


def _area(corners: Floats) -> float:
    (x0, y0), (x1, y1), (x2, y2) = corners.tolist()
    return float((x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0))


def _rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    (cy, sy), (cp, sp), (cr, sr) = (
        (math.cos(math.radians(a)), math.sin(math.radians(a))) for a in (yaw, pitch, roll)
    )
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    turned: NDArray[np.float64] = about_z @ about_y @ about_x
    return turned
