"""Media made at test time, with the truth known by construction.

Every picture carries its own number as a bar code, and the sound has clicks at known times, so that a
test can ask what the decode path made of both.
"""

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer

BITS = 12
Painter = Callable[[int], np.ndarray]  # picture number -> rgb [H, W, 3]


def barcode(number: int, *, width: int = 192, height: int = 128) -> np.ndarray:
    """A picture that says its number in 12 vertical bars, the lowest bit on the left."""
    bits = (number >> np.arange(BITS)) & 1
    columns = np.repeat(bits, width // BITS) * 200 + 20
    row = np.pad(columns, (0, width - len(columns)), mode="edge")
    return np.broadcast_to(row[None, :, None], (height, width, 3)).astype(np.uint8).copy()


def read_barcode(rgb: np.ndarray) -> int:
    """The number of a decoded bar code, whatever its size."""
    row = rgb[rgb.shape[0] // 2, :, 1].astype(int)
    centres = (np.arange(BITS) * 2 + 1) * len(row) // (2 * BITS)
    return int(((row[centres] > 120) << np.arange(BITS)).sum())


def click_track(times_s: Iterable[float], *, seconds: float, rate: int) -> np.ndarray:
    """Silence [S] with a click of 1 ms (a Hann bump) centred on each time."""
    samples = np.zeros(round(seconds * rate), np.float32)
    width = max(3, rate // 1000)
    bump = 0.9 * np.hanning(width + 2)[1:-1]
    for time_s in times_s:
        first = round(time_s * rate) - width // 2
        samples[first : first + width] = bump
    return samples


def find_clicks(samples: np.ndarray, *, rate: int) -> list[float]:
    """Times in s of the clicks: the centre of mass of each loud stretch."""
    loud = np.flatnonzero(np.abs(samples) > 0.15)
    groups = np.split(loud, np.flatnonzero(np.diff(loud) > rate // 50) + 1)
    weights = [np.abs(samples[group]) for group in groups if len(group)]
    return [float((group * w).sum() / w.sum()) / rate for group, w in zip(groups, weights, strict=True)]


def write_clip(
    path: Path,
    *,
    stamps_s: Iterable[Fraction] | None = None,
    fps: Fraction = Fraction(25),
    seconds: float = 2.0,
    paint: Painter = barcode,
    sound: np.ndarray | None = None,
    rate: int = 48_000,
    layout: str = "mono",
    sound_start_s: Fraction = Fraction(0),
    video_codec: str = "libx264",
    audio_codec: str = "aac",
    pixel_format: str = "yuv420p",
    keyframe_every: int | None = None,
    time_base: Fraction = Fraction(1, 90_000),
) -> Path:
    """Write pictures at `stamps_s` (or at a constant rate) and a sound that begins at `sound_start_s`.

    `time_base` must be fine enough for the moments of the pictures, and coarse enough for the codec.
    """
    stamps = list(stamps_s or (Fraction(k) / fps for k in range(round(seconds * fps))))
    with av.open(str(path), "w") as container:
        first = paint(0)
        video = container.add_stream(video_codec, rate=fps)
        assert isinstance(video, av.VideoStream)
        video.width, video.height = first.shape[1], first.shape[0]
        video.pix_fmt = pixel_format
        video.codec_context.time_base = time_base
        if keyframe_every is not None:
            video.codec_context.gop_size = keyframe_every
        if video_codec == "libx264":
            video.options = {"preset": "ultrafast", "crf": "20"}
        audio: av.AudioStream | None = None
        if sound is not None:
            added = container.add_stream(audio_codec, rate=rate, layout=layout)
            assert isinstance(added, av.AudioStream)
            audio = added
        for number, stamp_s in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(paint(number), format="rgb24")
            frame.time_base = time_base
            frame.pts = round(stamp_s / time_base)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            _write_sound(container, audio, sound, rate=rate, layout=layout, start_s=sound_start_s)
    return path


def _write_sound(
    container: OutputContainer,
    stream: av.AudioStream,
    sound: np.ndarray,
    *,
    rate: int,
    layout: str,
    start_s: Fraction,
) -> None:
    channels = len(av.AudioLayout(layout).channels)
    planes = np.broadcast_to(sound, (channels, len(sound))) if sound.ndim == 1 else sound
    block = stream.codec_context.frame_size or 1024
    for first in range(0, planes.shape[1], block):
        part = np.ascontiguousarray(planes[:, first : first + block], np.float32)
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
        frame.sample_rate = rate
        frame.time_base = Fraction(1, rate)
        frame.pts = first + round(start_s * rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
