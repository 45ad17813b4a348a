"""How far a face is turned to the side, from where its nose stands between its cheeks.

The mesh's depths are not relied on: of faces that are turned they are too small by a third. Places in the
picture are better known. If a nose stands D in front of the line between the cheeks, whose distance is W, a
turn by an angle moves it off their middle by D / W times the angle's tangent, in units of their distance as
seen.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

NOSE_TIP = 1
RIGHT_CHEEK, LEFT_CHEEK = 234, 454  # of the person, in front of the ears
RIGHT_EYE, LEFT_EYE = 33, 263  # outer corners, which tell how the head is tilted
NOSE_OVER_WIDTH = 0.71  # D / W in the meshes of 60 people of the training footage: 0.70 to 0.74


def yaw_degrees(landmarks: Floats) -> float:
    """The turn about the head's own upright axis, from mesh points [468, 3] in pixels.

    Positive: towards the right of the picture, if the head stands upright in it.
    """
    eyes = landmarks[LEFT_EYE, :2] - landmarks[RIGHT_EYE, :2]
    across = eyes / max(float(np.hypot(*eyes)), 1e-6)
    nose, right, left = (
        float(landmarks[point, :2] @ across) for point in (NOSE_TIP, RIGHT_CHEEK, LEFT_CHEEK)
    )
    width = max(abs(left - right), 1e-6)
    return math.degrees(math.atan((nose - (left + right) / 2) / width / NOSE_OVER_WIDTH))
