"""Pictures at 25 fps and sound at 16 kHz from a media file, on one exact clock.

One pass over the file feeds both: `Media.pictures()` yields pictures as they are decoded and keeps the
sound aside; `Media.sound()` is complete when the pictures are exhausted. Every picture and every
sample is placed by its presentation time (a Fraction of a second), never by counting, because late
starts, edit lists, priming samples and variable rates are all invisible to a counter.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import soundfile
from av.container import InputContainer

from avsync_cli.errors import ConfigError, MediaError
from avsync_cli.pictures import Picture, TimedFrame, show_pictures
from avsync_cli.sound import (
    NO_NAME,
    Recorder,
    Sound,
    cut_sound,
    is_break,
    mono_frame,
    time_of,
    weigh_channels,
)
from avsync_cli.spec import SAMPLES_PER_FRAME, VIDEO_FPS
from avsync_cli.streams import decode_packets, describe, main_audio, main_video, presentation_s
from avsync_cli.timing import first_tick_from, sample_at, tick_time


class Media:
    """An open file. Use `open_media`; read `pictures()` to the end before `sound()`."""

    def __init__(
        self,
        path: Path,
        container: InputContainer,
        *,
        threads: int = 0,
        audio_stream: int | None = None,
    ) -> None:
        self._path = path
        self._container = container
        self._video = main_video(container)
        self._audio = main_audio(container, audio_stream)
        self._recorder = Recorder()
        self._origin_s: Fraction | None = None
        self.decoded_pictures = 0
        if self._video is not None:
            self._video.thread_type = "AUTO"
            self._video.codec_context.thread_count = threads
        self.info = describe(container, self._video)

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
        refuse_no_part(start_s, end_s)
        first_tick = first_tick_from(start_s)
        stop_tick = None if end_s is None or end_s == math.inf else first_tick_from(end_s)
        aspect = self._video.sample_aspect_ratio
        yield from show_pictures(self._decode(stop_tick), aspect, first_tick=first_tick, stop_tick=stop_tick)
        self._recorder.flush()
        if self._origin_s is None:
            raise MediaError(f"{self._path}: no picture could be decoded", "unreadable")

    def sound(self) -> Sound | None:
        """All the sound that was passed, on the grid's clock; None where there is none."""
        return self._recorder.sound(self._origin_s or Fraction(0))

    def heard_until(self) -> float:
        """The tick up to which sound was read: minus infinity before any was."""
        until_s, origin_s = self._recorder.until_s, self._origin_s
        return -math.inf if until_s is None or origin_s is None else float((until_s - origin_s) * VIDEO_FPS)

    def sound_between(self, first_tick: int, end_tick: int) -> Sound | None:
        """The sound of the ticks [first_tick, end_tick), or what was read of it and not forgotten."""
        origin_s, begin_s = self._origin_s or Fraction(0), self._recorder.begin_s
        sound = self._recorder.sound_so_far(origin_s)
        if sound is None or begin_s is None:
            return None
        return cut_sound(
            sound, first_tick, end_tick, grid_tick=sample_at(begin_s - origin_s) // SAMPLES_PER_FRAME
        )

    def forget_sound(self, before_tick: int) -> None:
        """Give the memory of sound back that is not asked for again; `sound` lacks it, too."""
        self._recorder.forget((self._origin_s or Fraction(0)) + tick_time(before_tick))

    def sound_alone(self) -> Sound | None:
        """The sound of a file whose pictures do not matter, its first sample on the grid's origin."""
        if self._audio is None:
            return None
        for frame in decode_packets(self._container.demux(self._audio)):
            if isinstance(frame, av.AudioFrame):
                self._recorder.add(frame)
        return self._recorder.sound(self._recorder.stretches[0][0]) if self._recorder.stretches else None

    def _decode(self, stop_tick: int | None) -> Iterator[TimedFrame]:
        """Demux once; yield pictures with their time from the first one, keep the sound."""
        stop_s = None if stop_tick is None else tick_time(stop_tick)
        step_s = 1 / Fraction(self._video.average_rate or VIDEO_FPS)  # type: ignore[union-attr]
        last_s: Fraction | None = None
        passed = {"video": False, "audio": self._audio is None}
        streams = [stream for stream in (self._video, self._audio) if stream is not None]
        for frame in decode_packets(self._container.demux(streams)):
            if isinstance(frame, av.AudioFrame):
                if self._recorder.is_break(frame):
                    return
                time_s = None if frame.pts is None else time_of(frame)
                self._recorder.add(frame)
                if stop_s is not None and time_s is not None and self._origin_s is not None:
                    passed["audio"] = passed["audio"] or time_s - self._origin_s >= stop_s
            elif not passed["video"]:
                self.decoded_pictures += 1
                time_s = presentation_s(frame, last_s, step_s)
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


@contextmanager
def open_media(path: str | Path, *, threads: int = 0, audio_stream: int | None = None) -> Iterator[Media]:
    """Open a media file for one pass. Raises MediaError naming the file and the reason.

    `threads` limits the video decoder; 0 leaves the choice to the codec. `audio_stream` is the number of
    the sound to take, counted from 0; MediaError where there is none such.
    """
    with open_container(path) as container:
        yield Media(Path(path), container, threads=threads, audio_stream=audio_stream)


@contextmanager
def open_container(path: str | Path) -> Iterator[InputContainer]:
    """Open a file; what goes wrong inside becomes a MediaError naming the file and the reason."""
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
            yield container
        except (av.FFmpegError, MemoryError) as error:
            raise MediaError(f"{path}: {_reason(error)}") from error


def refuse_no_part(start_s: float, end_s: float | None) -> None:
    """Raises ConfigError where [start_s, end_s) is no part of a video."""
    if not (0 <= start_s < math.inf) or (end_s is not None and not start_s < end_s):
        raise ConfigError(
            f"passage from {start_s} s to {end_s} s: must begin at 0 or later and before its end"
        )


def read_sound_file(path: str | Path) -> Sound:
    """Read a separate sound file, its first sample on the grid's origin. Raises MediaError.

    libsndfile reads WAV, FLAC, OGG, MP3; what it does not know (AAC, video files) goes through PyAV.
    """
    path = Path(path)
    recorder = Recorder()
    try:
        with soundfile.SoundFile(path) as file:
            rate_hz = int(file.samplerate)
            weights = weigh_channels([NO_NAME] * file.channels)
            # A second at a time: of an hour in many channels, no more than the mono sound is kept.
            while len(block := file.read(rate_hz, dtype="float32", always_2d=True)):
                recorder.add(mono_frame(block.mean(axis=1) if weights is None else block @ weights, rate_hz))
    except (soundfile.SoundFileError, OSError, TypeError):
        return _decode_sound(path)
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


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text.splitlines()[0] if text else type(error).__name__
