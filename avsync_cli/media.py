"""Pictures at 25 fps and sound at 16 kHz from a media file, on one exact clock.

One pass over the file feeds both: `Media.pictures()` yields pictures as they are decoded and keeps the
sound aside; `Media.sound()` is complete when the pictures are exhausted. Every picture and every
sample is placed by its presentation time (a Fraction of a second), never by counting, because late
starts, edit lists, priming samples and variable rates are all invisible to a counter.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from avsync_cli.errors import ConfigError, MediaError
from avsync_cli.sound import Recorder, Sound, is_break, time_of
from avsync_cli.spec import MAX_HOLD_S, MAX_PICTURE_SIDE, VIDEO_FPS
from avsync_cli.timing import first_tick_from, tick_time


@dataclass(frozen=True)
class MediaInfo:
    """What the container declares; None where it does not."""

    duration_s: float | None
    fps: float | None


@dataclass(frozen=True)
class Picture:
    """The picture on show at a tick of the 25-fps grid: uint8 [H, W, 3], upright.

    `scale` is picture pixels per pixel of the file, below 1 where a large picture was reduced.
    """

    tick: int
    rgb: NDArray[np.uint8]
    scale: float


class Media:
    """An open file. Use `open_media`; read `pictures()` to the end before `sound()`."""

    def __init__(self, path: Path, container: InputContainer, *, threads: int = 0) -> None:
        self._path = path
        self._container = container
        self._video = _main_video(container)
        self._audio = _main_audio(container)
        self._recorder = Recorder()
        self._origin_s: Fraction | None = None
        if self._video is not None:
            self._video.thread_type = "AUTO"
            self._video.codec_context.thread_count = threads
        self.info = _describe(container, self._video)

    @property
    def has_audio(self) -> bool:
        return self._audio is not None

    def pictures(self, *, start_s: float = 0.0, end_s: float | None = None) -> Iterator[Picture]:
        """Yield one picture a tick for the passage [start_s, end_s), counted from the first picture.

        A tick shows the picture nearest in presentation time; where the nearest is more than
        `MAX_HOLD_S` away there is no picture for the tick. Raises MediaError where the file has no
        picture that can be decoded.
        """
        if self._video is None:
            raise MediaError(f"{self._path}: no video stream", "no_video")
        if not (0 <= start_s < math.inf) or (end_s is not None and not start_s < end_s):
            raise ConfigError(
                f"passage from {start_s} s to {end_s} s: must begin at 0 or later and before its end"
            )
        first_tick = first_tick_from(start_s)
        stop_tick = None if end_s is None or end_s == math.inf else first_tick_from(end_s)
        shown = False
        for frame, ticks in self._schedule(self._decode(stop_tick)):
            wanted = [
                tick for tick in ticks if tick >= first_tick and (stop_tick is None or tick < stop_tick)
            ]
            shown = True
            if wanted:
                rgb, scale = _upright_rgb(frame, self._video.sample_aspect_ratio)
                yield from (Picture(tick, rgb, scale) for tick in wanted)
        if not shown:
            raise MediaError(f"{self._path}: no picture could be decoded", "unreadable")

    def sound(self) -> Sound | None:
        """All the sound that was passed, on the grid's clock; None where there is none."""
        return self._recorder.sound(self._origin_s or Fraction(0))

    def sound_alone(self) -> Sound | None:
        """The sound of a file whose pictures do not matter, its first sample on the grid's origin."""
        if self._audio is None:
            return None
        for frame in _frames(self._container, [self._audio]):
            if isinstance(frame, av.AudioFrame):
                self._recorder.add(frame)
        return self._recorder.sound(self._recorder.stretches[0][0]) if self._recorder.stretches else None

    def _decode(self, stop_tick: int | None) -> Iterator[tuple[Fraction, av.VideoFrame]]:
        """Demux once; yield pictures with their time from the first one, keep the sound."""
        stop_s = None if stop_tick is None else tick_time(stop_tick)
        step_s = 1 / Fraction(self._video.average_rate or VIDEO_FPS)  # type: ignore[union-attr]
        last_s: Fraction | None = None
        passed = {"video": False, "audio": self._audio is None}
        streams = [stream for stream in (self._video, self._audio) if stream is not None]
        for frame in _frames(self._container, streams):
            if isinstance(frame, av.AudioFrame):
                if self._recorder.is_break(frame):
                    return
                time_s = None if frame.pts is None else time_of(frame)
                self._recorder.add(frame)
                if stop_s is not None and time_s is not None and self._origin_s is not None:
                    passed["audio"] = passed["audio"] or time_s - self._origin_s >= stop_s
            elif not passed["video"]:
                time_s = _presentation_s(frame, last_s, step_s)
                if last_s is not None and is_break(time_s, last_s):
                    return
                if last_s is not None and time_s <= last_s:
                    continue
                if self._origin_s is None:
                    self._origin_s = time_s
                last_s = time_s
                yield time_s - self._origin_s, frame
                # One picture past the end is needed: it may be the nearest to the last tick.
                passed["video"] = stop_s is not None and time_s - self._origin_s > stop_s
            if all(passed.values()):
                return

    def _schedule(
        self, frames: Iterator[tuple[Fraction, av.VideoFrame]]
    ) -> Iterator[tuple[av.VideoFrame, list[int]]]:
        """Give every tick its nearest picture: yield each picture with the ticks it serves."""
        tick = 0
        held: tuple[Fraction, av.VideoFrame] | None = None
        step_s = Fraction(1, VIDEO_FPS)
        for time_s, frame in frames:
            if held is not None:
                step_s = time_s - held[0]
                ticks, tick = _ticks_until((held[0] + time_s) / 2, tick, held[0])
                yield held[1], ticks
            held = (time_s, frame)
        if held is not None:
            # Strictly inside half a frame: the tick half a frame later belongs to nobody.
            ticks, _ = _ticks_until(held[0] + min(step_s, MAX_HOLD_S) / 2 - Fraction(1, 10**6), tick, held[0])
            yield held[1], ticks


@contextmanager
def open_media(path: str | Path, *, threads: int = 0) -> Iterator[Media]:
    """Open a media file for one pass. Raises MediaError naming the file and the reason.

    `threads` limits the video decoder; 0 leaves the choice to the codec.
    """
    path = Path(path)
    if path.is_dir():
        raise MediaError(f"{path}: is a folder, not a video")
    try:
        # As text, bytes that are no UTF-8 become "?": a damaged tag must not make a file unreadable.
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"{path}: {_reason(error)}") from error
    with container:
        try:
            yield Media(path, container, threads=threads)
        except (av.FFmpegError, MemoryError) as error:
            raise MediaError(f"{path}: {_reason(error)}") from error


def read_sound_file(path: str | Path) -> Sound:
    """Read a separate sound file, its first sample on the grid's origin. Raises MediaError.

    libsndfile reads WAV, FLAC, OGG, MP3; what it does not know (AAC, video files) goes through PyAV.
    """
    path = Path(path)
    try:
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, TypeError):
        return _decode_sound(path)
    recorder = Recorder()
    mono = np.ascontiguousarray(samples.mean(axis=1)[None])
    if mono.size:
        frame = av.AudioFrame.from_ndarray(mono, format="flt", layout="mono")
        frame.sample_rate = int(rate_hz)
        recorder.add(frame)
    sound = recorder.sound(Fraction(0))
    if sound is None:
        raise MediaError(f"{path}: the sound file is empty", "no_audio")
    return sound


def _decode_sound(path: Path) -> Sound:
    with open_media(path) as media:
        sound = media.sound_alone()
    if sound is None:
        raise MediaError(f"{path}: no sound could be decoded", "no_audio")
    return sound


def _frames(
    container: InputContainer, streams: list[VideoStream | AudioStream]
) -> Iterator[av.VideoFrame | av.AudioFrame]:
    """Decode packet by packet, stepping over damaged ones; a file cut short ends where it ends."""
    packets = container.demux(streams)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError:
            return
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue
        for frame in frames:
            if isinstance(frame, av.VideoFrame | av.AudioFrame):
                yield frame


def _ticks_until(limit_s: Fraction, tick: int, shown_s: Fraction) -> tuple[list[int], int]:
    """Ticks from `tick` up to `limit_s` that a picture of time `shown_s` serves, and the next tick."""
    ticks = []
    while tick_time(tick) <= limit_s:
        if abs(tick_time(tick) - shown_s) <= MAX_HOLD_S:
            ticks.append(tick)
        tick += 1
    return ticks, tick


def _presentation_s(frame: av.VideoFrame, last_s: Fraction | None, step_s: Fraction) -> Fraction:
    stamp = frame.pts if frame.pts is not None else frame.dts
    if stamp is not None:
        return stamp * Fraction(frame.time_base or 0)
    return Fraction(0) if last_s is None else last_s + step_s


def _main_audio(container: InputContainer) -> AudioStream | None:
    """The first sound whose codec is known."""
    return next((s for s in container.streams.audio if s.codec_context is not None), None)


def _main_video(container: InputContainer) -> VideoStream | None:
    """The largest moving picture whose codec is known; cover art is a still and does not count."""
    moving = [
        s
        for s in container.streams.video
        if s.codec_context is not None and not s.disposition & Disposition.attached_pic
    ]
    return max(moving, key=lambda s: s.codec_context.width * s.codec_context.height, default=None)


def _upright_rgb(frame: av.VideoFrame, aspect: Fraction | None) -> tuple[NDArray[np.uint8], float]:
    """Reduce, convert and rotate one picture as a player would show it."""
    width, height = round(frame.width * (aspect or 1)), frame.height
    scale = min(1.0, MAX_PICTURE_SIDE / max(width, height))
    size = (max(2, round(width * scale)), max(2, round(height * scale)))
    rgb = frame.to_ndarray(format="rgb24", width=size[0], height=size[1], interpolation="AREA")
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, quarter_turns)), scale


def _describe(container: InputContainer, video: VideoStream | None) -> MediaInfo:
    duration_s = None if container.duration is None else container.duration / av.time_base
    rate = None if video is None else video.average_rate
    return MediaInfo(duration_s, None if rate is None else float(rate))


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text.splitlines()[0] if text else type(error).__name__
