"""How exact the turn of a head is: the portrait's mesh is turned by known angles and painted anew.

python tests/benchmarks/bench_yaw.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from turning import TurnedPortrait, look_at_face

from avsync_cli.faces import FaceModels
from avsync_cli.pose import yaw_degrees

ANGLES = (10, 20, 30, 45, 60)
NODS_AND_TILTS = ((0, 0), (15, 0), (-15, 0), (0, 20))


def main() -> None:
    models = FaceModels()
    portrait = TurnedPortrait(models)
    print("| turned by | " + " | ".join(_name(*each) for each in NODS_AND_TILTS) + " |")
    print("|---|" + "---|" * len(NODS_AND_TILTS))
    for yaw in (*(-angle for angle in reversed(ANGLES)), 0, *ANGLES):
        found = [
            yaw_degrees(look_at_face(models, portrait.turn(yaw, pitch=pitch, roll=roll)))
            for pitch, roll in NODS_AND_TILTS
        ]
        print(f"| {yaw:+d}° | " + " | ".join(f"{each:+.0f}°" for each in found) + " |")


def _name(pitch: int, roll: int) -> str:
    if not pitch and not roll:
        return "level"
    return f"tilted {roll}°" if roll else f"nodding {pitch:+d}°"


if __name__ == "__main__":
    main()
