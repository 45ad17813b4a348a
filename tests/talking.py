"""A talking head made from one portrait: the mouth opens as far as the sound is loud."""

import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from clips import write_clip

PORTRAIT = Path(__file__).parent / "golden" / "portrait.jpg"
RATE = 16_000
STREAM_SECONDS = 6  # of the heads that are watched as streams


def syllables(seconds: float, *, seed: int = 0) -> np.ndarray:
    """An irregular loudness in 0..1 at 100 Hz: bursts of 60 to 200 ms with pauses between."""
    rng = np.random.default_rng(seed)
    loudness: list[float] = []
    while len(loudness) < seconds * 100:
        burst = np.hanning(int(rng.integers(8, 24))) * rng.uniform(0.5, 1.0)
        loudness += [*burst, *np.zeros(int(rng.integers(2, 18)))]
    return np.array(loudness[: int(seconds * 100)], np.float32)


def voice(loudness: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Noise and a buzz with the given loudness: float32 at 16 kHz."""
    samples = len(loudness) * RATE // 100
    time_s = np.arange(samples) / RATE
    envelope = np.interp(time_s, np.arange(len(loudness)) / 100, loudness)
    buzz = np.sign(np.sin(2 * np.pi * 130 * time_s))
    noise = np.random.default_rng(seed).standard_normal(samples)
    sound: np.ndarray = (envelope * (0.15 * buzz + 0.05 * noise)).astype(np.float32)
    return sound


class TalkingHead:
    """Paints the portrait with its mouth opened by `loudness` at the time of each picture."""

    def __init__(self, loudness: np.ndarray, *, fps: Fraction, side: int = 256) -> None:
        portrait = cv2.imread(str(PORTRAIT))
        assert portrait is not None
        self.rgb = cv2.cvtColor(portrait, cv2.COLOR_BGR2RGB)
        self.rgb = cv2.resize(self.rgb, (side, side), interpolation=cv2.INTER_AREA)
        self.loudness, self.fps = loudness, fps
        self.mouth = _mouth_of(self.rgb)

    def __call__(self, number: int) -> np.ndarray:
        moment = min(len(self.loudness) - 1, int(number / self.fps * 100))
        return open_mouth(self.rgb, self.mouth, float(self.loudness[moment]))


def _mouth_of(rgb: np.ndarray) -> tuple[float, float, float]:
    """Centre x, line between the lips y, and width of the mouth, in pixels."""
    from avsync_cli.faces import FaceModels, roi_from_detection

    models = FaceModels()
    points = models.mesh(rgb, [roi_from_detection(models.detect(rgb)[0])])[0][0]
    return (
        float(points[[61, 291], 0].mean()),
        float(points[[13, 14], 1].mean()),
        float(points[291, 0] - points[61, 0]),
    )


def open_mouth(rgb: np.ndarray, mouth: tuple[float, float, float], amount: float) -> np.ndarray:
    """Pull the face below the line of the lips down and fill the gap with dark."""
    x0, y0, width = mouth
    height_px, width_px = rgb.shape[:2]
    x, y = np.meshgrid(np.arange(width_px, dtype=np.float32), np.arange(height_px, dtype=np.float32))
    gap = 0.45 * width * amount * np.exp(-(((x - x0) / (0.38 * width)) ** 2) * 2)
    below = np.clip((y - y0) / np.maximum(gap, 1e-3), 0, 1)  # 0 above the lips, 1 beyond the gap
    fade = np.exp(-np.maximum(0, y - y0 - gap) / (1.2 * width))
    source_y = np.where(y <= y0, y, y - gap * np.where(below < 1, (y - y0) / np.maximum(gap, 1e-3), fade))
    painted = cv2.remap(
        rgb, x, source_y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    inside = (y > y0) & (y < y0 + gap) & (gap > 1)
    painted[inside] = (40, 15, 15)
    return painted


def write_talking_head(
    path: Path,
    *,
    audio_lead_ms: float = 0.0,
    seconds: float = 4.0,
    fps: Fraction = Fraction(25),
    side: int = 256,
    seed: int = 0,
    keyframe_every: int | None = None,
) -> Path:
    """A talking head whose sound is early by `audio_lead_ms`."""
    margin = 1.0
    loudness = syllables(seconds + 2 * margin, seed=seed)
    first = round((margin + audio_lead_ms / 1000) * RATE)
    sound = voice(loudness, seed=seed)[first : first + round(seconds * RATE)]
    head = TalkingHead(loudness[round(margin * 100) :], fps=fps, side=side)
    return write_clip(
        path, fps=fps, seconds=seconds, paint=head, sound=sound, rate=RATE, keyframe_every=keyframe_every
    )


if __name__ == "__main__":
    write_talking_head(Path(sys.argv[1]))
