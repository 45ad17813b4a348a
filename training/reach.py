"""How far a network looks beyond the window it judges."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reach:
    """How far a network looks beyond a window, on each side."""

    frames: int = 0
    mel_steps: int = 0
