"""Pictures at 25 fps and sound at 16 kHz from a media file, on one exact clock.

One pass over the file feeds both: `Media.pictures()` yields pictures as they are decoded and keeps the
sound aside; `Media.sound()` is complete when the pictures are exhausted. Every picture and every
sample is placed by its presentation time (a Fraction of a second), never by counting, because late
starts, edit lists, priming samples and variable rates are all invisible to a counter.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import av
import soundfile
from av.container import InputContainer

from avsync_cli.container import main_audio, main_video, read_info
from avsync_cli.decoder import PictureClock, decode_packets, open_container, timed_packets
from avsync_cli.edits import Edits, read_edits
from avsync_cli.errors import ConfigError, MediaError
from avsync_cli.gate import (
    LimitError,
    describe_unseen,
    guard_audio,
    guard_video,
    refuse_other_sources,
    refuse_sound,
    refuse_sound_ahead,
)
from avsync_cli.grid import Picture, TimedFrame, show_pictures
from avsync_cli.parts import Parts
from avsync_cli.sound import (
    MonoMixer,
    Recorded,
    Recorder,
    Sound,
    time_of,
)
from avsync_cli.timing import first_tick_from, tick_time


class Media:
    """An open file. Use `open_media`; read `pictures()` to the end before `sound()`."""

    def __init__(
        self,
        path: Path,
        container: InputContainer,
        *,
        threads: int = 0,
        audio_stream: int | None = None,
        edits: Mapping[int, Edits] = MappingProxyType({}),
    ) -> None:
        self._path = path
        self._edits = edits
        self._container = container
        self._video = main_video(container)
        self._audio = main_audio(container, audio_stream)
        self._recorder = Recorder()
        self._clock = PictureClock(container, self._video)
        self._parts = Parts()
        if self._video is not None:
            guard_video(self._video, threads=threads)
        if self._audio is not None:
            guard_audio(self._audio)
        self.info = read_info(container, self._video)

    @property
    def decoded_pictures(self) -> int:
        return self._clock.decoded_pictures

    @property
    def starts_anew_s(self) -> float | None:
        """Where a clock was seen to jump, first of all; what follows is placed behind what came before."""
        return self._clock.starts_anew_s

    @property
    def has_audio(self) -> bool:
        return self._audio is not None

    @property
    def audio_stream(self) -> int | None:
        """The number of the sound that is heard, from 0; None where there is none."""
        return None if self._audio is None else list(self._container.streams.audio).index(self._audio)

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
        if self._clock.origin_s is None:
            raise MediaError(f"{self._path}: {describe_unseen(self._video)}", "unreadable")

    def sound(self) -> Sound | None:
        """All the sound that was passed, on the grid's clock; None where there is none."""
        return self._recorder.sound(self._clock.origin_s or Fraction(0))

    def heard_until(self) -> float:
        """The tick up to which sound was read: minus infinity before any was."""
        return self._recorded.heard_until()

    def sound_between(self, first_tick: int, end_tick: int) -> Sound | None:
        """The sound of the ticks [first_tick, end_tick), or what was read of it and not forgotten."""
        return self._recorded.sound_between(first_tick, end_tick)

    def forget_sound(self, before_tick: int) -> None:
        """Give the memory of sound back that is not asked for again; `sound` lacks it, too."""
        self._recorded.forget_sound(before_tick)

    @property
    def _recorded(self) -> Recorded:
        return Recorded(self._recorder, self._clock.origin_s)

    def sound_alone(self) -> Sound | None:
        """The sound of a file whose pictures do not matter, its first sample on the grid's origin."""
        if self._audio is None:
            return None
        for frame in decode_packets(timed_packets(self._container, self._audio), self._edits):
            if isinstance(frame, av.AudioFrame):
                self._recorder.add(frame)
        return self._recorder.sound(self._recorder.stretches[0][0]) if self._recorder.stretches else None

    def _decode(self, stop_tick: int | None) -> Iterator[TimedFrame]:
        """Demux once; yield pictures with their time from the first one, keep the sound."""
        stop_s = None if stop_tick is None else tick_time(stop_tick)
        clock, recorder = self._clock, self._recorder
        clock.begin_pass()
        passed = {"video": False, "audio": self._audio is None}
        packets = timed_packets(self._container, self._video, self._audio)
        for frame in decode_packets(packets, self._edits):
            self._place(frame)
            if self._parts.are_too_many:
                return
            if isinstance(frame, av.AudioFrame):
                time_s = None if frame.pts is None else time_of(frame)
                recorder.add(frame)
                refuse_sound_ahead(recorder.held_s)
                if stop_s is not None and time_s is not None and clock.origin_s is not None:
                    passed["audio"] = passed["audio"] or time_s - clock.origin_s >= stop_s
            elif not passed["video"]:
                time_s = clock.time_picture(frame)
                if clock.jumped:
                    return
                if time_s is None:
                    continue
                yield time_s, frame
                # One picture past the end is needed: it may be the nearest to the last tick.
                passed["video"] = stop_s is not None and time_s > stop_s
            if all(passed.values()):
                return

    def _place(self, frame: av.VideoFrame | av.AudioFrame) -> None:
        """Move a frame that comes after a jump of the file's clock behind what came before."""
        sound_s, picture_s = self._recorder.until_s, self._clock.next_s
        end_s = max(sound_s or Fraction(0), picture_s or Fraction(0))
        if isinstance(frame, av.AudioFrame):
            jumped = self._parts.place(frame, "audio", expected_s=sound_s, end_s=end_s)
        else:
            jumped = self._parts.place(frame, "video", expected_s=picture_s, end_s=end_s)
        if jumped:
            self._clock.note_jump(end_s)


@contextmanager
def open_media(path: str | Path, *, threads: int = 0, audio_stream: int | None = None) -> Iterator[Media]:
    """Open a media file for one pass. Raises MediaError naming the file and the reason.

    `threads` limits the video decoder; 0 leaves the choice to the codec. `audio_stream` is the number of
    the sound to take, counted from 0; MediaError where there is none such.
    """
    edits = read_edits(Path(path))
    with open_container(path, own_edits=bool(edits)) as container:
        yield Media(Path(path), container, threads=threads, audio_stream=audio_stream, edits=edits)


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
    refuse_other_sources(path)
    recorder = Recorder()
    try:
        with soundfile.SoundFile(path) as file:
            rate_hz = int(file.samplerate)
            refuse_sound(rate_hz, file.channels)
            mixer = MonoMixer(file.channels, rate_hz)
            # A second at a time: of an hour in many channels, no more than the mono sound is kept.
            while len(block := file.read(rate_hz, dtype="float32", always_2d=True)):
                recorder.add(mixer.mix(block.T))
    except (soundfile.SoundFileError, OSError, TypeError):
        return _decode_sound(path)
    except LimitError as error:
        raise MediaError(f"{path}: {error}") from error
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
