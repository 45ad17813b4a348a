"""A file read in places: pictures from the keyframe before each, the sound around it, and nothing between.

The file is opened twice, because pictures and sound lie apart in many files, and because the sound of a
place is heard before it is known whether its pictures are worth decoding.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain, islice, pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import av
from av.container import InputContainer

from avsync_cli.container import main_audio, main_video
from avsync_cli.decoder import (
    PictureClock,
    decode_packets,
    open_container,
    packet_s,
    read_packets,
    seek_key,
    timed_packets,
)
from avsync_cli.edits import Edits, media_at, read_edits, shown_from
from avsync_cli.gate import guard_audio, guard_video
from avsync_cli.grid import Picture, TimedFrame, show_pictures
from avsync_cli.sound import Recorder, Sound, cut_sound, time_of
from avsync_cli.spec import VIDEO_FPS
from avsync_cli.timing import tick_time

_SEARCH_PACKETS = 5_000  # among which there must be a keyframe after a seek
_UNSURE_TICKS = 15  # after a seek in MPEG-PS, where only some pictures say when they are to be shown
_LATE_S = 2  # by which a seek may miss its aim; further off, the file's index is not to be trusted
_LEAD_IN_S = Fraction(1, 2)  # of sound that decoders need before what is wanted
_LATE_SOUND_S = 30  # of pictures past a place, after which its sound is not to be expected
_BACK_S = (0, 12, 36)  # before an aim, where to seek one after the other until a keyframe lies before it
_MAX_APPROACH_S = 1.0  # after which no other seek is tried; in a damaged file one may take many
_WITHOUT_INDEX = frozenset(("mpegts", "mpeg", "flv"))
_STAMPS = 64  # that are compared
_STEP_BACK_S = 1
_LEAP_S, _LEAP_STEPS = 600, 10  # so much, and so many times the usual step: no pause in between
_FAR_S = Fraction(10**9)  # later than any file ends


class Places:
    """Two open handles on one file, and the clock of its first picture. Use `open_places`."""

    def __init__(
        self,
        pictures: InputContainer,
        sound: InputContainer,
        *,
        threads: int,
        audio_stream: int | None,
        edits: Mapping[int, Edits],
    ) -> None:
        self._pictures, self._sound, self._edits = pictures, sound, edits
        self._video = main_video(pictures)
        self._audio = main_audio(sound, audio_stream)
        if self._audio is not None:
            guard_audio(self._audio)
        self._packets: Iterator[av.Packet[Any]] = iter(())
        self._key_s: Fraction | None = None
        self._sound_comes_late: bool | None = None  # far behind its pictures; None while that is not known
        self._clock = PictureClock(pictures, self._video)
        if self._video is not None:
            guard_video(self._video, threads=threads)
            self._packets = timed_packets(pictures, self._video)
            next(self._decode(None), None)  # begins the clock

    @property
    def decoded_pictures(self) -> int:
        return self._clock.decoded_pictures

    @property
    def starts_anew_s(self) -> float | None:
        """Where a clock was seen to jump, first of all."""
        return self._clock.starts_anew_s

    def measure_s(self) -> float | None:
        """Seconds from the first picture to the last that the file has; None where it cannot be searched.

        For files that do not declare how long they are. Packets are read from the last keyframe on, or all
        of them where there is no index, but none is decoded.
        """
        video, origin_s = self._video, self._clock.origin_s
        if video is None or origin_s is None or not seek_key(self._pictures, video, _FAR_S):
            return None
        try:
            packets = read_packets(self._pictures, video)
            stamps = [packet.pts for packet in packets if packet.pts is not None]
        except av.FFmpegError:
            return None
        return float(max(stamps) * Fraction(video.time_base or 0) - origin_s) if stamps else None

    def approach(self, tick: int) -> int | None:
        """Go to the last keyframe at or before a tick: the first tick that `pictures` can then show.

        None where the file cannot be searched, or not be trusted to be where it says.
        """
        if self._video is None or self._clock.origin_s is None:
            return None
        edits = self._edits.get(self._video.id, ())
        aim_s = media_at(edits, self._clock.origin_s + tick_time(tick))
        began = perf_counter()
        for back_s in _BACK_S:
            if perf_counter() - began > _MAX_APPROACH_S:
                return None
            begin = self._find_key(aim_s, back_s)
            key_s = packet_s(begin[0]) if begin else None
            late_s = _LATE_S if back_s == _BACK_S[-1] else 0
            if key_s is not None and key_s <= aim_s + late_s:
                break
        else:
            return None
        key_s = shown_from(edits, key_s) + self._clock.delay_s  # at the latest
        self._key_s, self._packets = key_s, chain(begin, self._packets)
        unsure = _UNSURE_TICKS if tick > 0 and self._pictures.format.name == "mpeg" else 0
        return max(0, math.ceil((key_s - self._clock.origin_s) * VIDEO_FPS)) + unsure

    def _find_key(self, aim_s: Fraction, back_s: int) -> "list[av.Packet[Any]]":
        """Seek to some seconds before an aim, and read from a keyframe on; without one the list is empty.

        At once it is the first that comes, as the index promises; further back the last before the aim.
        """
        found: list[av.Packet[Any]] = []
        if self._video is None or not seek_key(self._pictures, self._video, aim_s - back_s):
            return []
        self._packets = timed_packets(self._pictures, self._video)
        try:
            for packet in islice(self._packets, _SEARCH_PACKETS):
                time_s = packet_s(packet)
                if packet.is_keyframe and (not found or (time_s is not None and time_s <= aim_s)):
                    found = []
                if found or packet.is_keyframe:
                    found.append(packet)
                if found and (back_s == 0 or (time_s is not None and time_s > aim_s)):
                    break
        except av.FFmpegError:
            return []
        return found

    def pictures(self, first_tick: int, end_tick: int) -> Iterator[Picture]:
        """One picture a tick of [first_tick, end_tick), decoded from the keyframe that was approached."""
        if self._video is not None and self._clock.origin_s is not None:
            yield from show_pictures(
                self._decode(tick_time(end_tick)),
                self._video.sample_aspect_ratio,
                first_tick=first_tick,
                stop_tick=end_tick,
            )

    def sound(self, first_tick: int, end_tick: int) -> Sound | None:
        """The sound of the ticks [first_tick, end_tick), or what there is of it."""
        if self._audio is None or self._clock.origin_s is None:
            return None
        first_s, end_s = (self._clock.origin_s + tick_time(tick) for tick in (first_tick, end_tick))
        if self._is_silent(media_at(self._edits.get(self._audio.id, ()), first_s)):
            return None
        recorder = Recorder()
        edits = self._edits.get(self._audio.id, ())
        begin_s = media_at(edits, first_s) - _LEAD_IN_S
        try:
            if not self._seek_sound(begin_s):
                return None
            packets = self._sound_packets(begin_s, media_at(edits, end_s))
            for frame in decode_packets(packets, self._edits):
                if isinstance(frame, av.AudioFrame):
                    if self._clock.jumps_at(frame, recorder) or time_of(frame) >= end_s:
                        break
                    recorder.add(frame)
        except (av.FFmpegError, OverflowError):
            return None
        sound = recorder.sound(self._clock.origin_s)
        return None if sound is None else cut_sound(sound, first_tick, end_tick)

    def _sound_packets(self, first_s: Fraction, end_s: Fraction) -> "Iterator[av.Packet[Any]]":
        """Packets of sound from a time of the track on, up to where the pictures show that no more can come.

        A sound may end long before its pictures, so that there is nothing to wait for; or all of it may lie
        behind them. The first place without sound is searched to the end of the file, to know which.
        """
        heard = late = False
        for packet in timed_packets(self._sound, self._audio, main_video(self._sound)):
            time_s = packet_s(packet)
            if packet.stream is not self._audio:
                late = late or (time_s is not None and time_s > end_s + _LATE_SOUND_S)
                if late and (heard or self._sound_comes_late is False):
                    return
                continue
            if late and time_s is not None:
                self._sound_comes_late = time_s < end_s
            if time_s is None or time_s >= first_s:
                heard = heard or time_s is not None  # the last packet only asks the decoder for the rest
                yield packet
        if not heard and self._sound_comes_late is None:
            self._sound_comes_late = False

    def _is_silent(self, time_s: Fraction) -> bool:
        """Whether the sound is declared to have ended by then, where that can be relied on."""
        audio = self._audio
        if audio is None or not audio.duration or "mov" not in self._sound.format.name:
            return False
        return time_s > ((audio.start_time or 0) + audio.duration) * Fraction(audio.time_base or 0)

    def _seek_sound(self, time_s: Fraction) -> bool:
        """MP4 knows where each sound lies; most others find their way by their pictures alone."""
        stream = self._audio if "mov" in self._sound.format.name else main_video(self._sound)
        if stream is None:
            return True
        start_s = (stream.start_time or 0) * Fraction(stream.time_base or 1)
        return seek_key(self._sound, stream, max(time_s, start_s))

    def _decode(self, end_s: Fraction | None) -> Iterator[TimedFrame]:
        """Pictures from the keyframe approached to one past the end; those before it lack references."""
        clock = self._clock
        clock.begin_pass()
        for frame in decode_packets(self._packets, self._edits):
            if not isinstance(frame, av.VideoFrame):
                continue
            time_s = clock.time_picture(frame, earliest_s=self._key_s)
            if clock.jumped:
                return
            if time_s is None:
                continue
            yield time_s, frame
            if end_s is not None and time_s > end_s:
                return


@contextmanager
def open_places(path: str | Path, *, threads: int = 0, audio_stream: int | None = None) -> Iterator[Places]:
    """Open a file to be read in places. Raises MediaError, also where it has no such sound."""
    edits = read_edits(Path(path))
    own = bool(edits)
    with open_container(path, own_edits=own) as pictures, open_container(path, own_edits=own) as sound:
        yield Places(pictures, sound, threads=threads, audio_stream=audio_stream, edits=edits)


def starts_anew(path: Path) -> bool:
    """Whether the clock steps back or leaps ahead between many moments of a file without an index, as joined.

    A seek would find one of its parts. Packets are read, but none is decoded. Raises MediaError.
    """
    stamps = list[Fraction]()
    with open_container(path) as container:  # apart: seeks by bytes mislead later ones by time
        video, size = main_video(container), container.size
        if video is None or container.format.name not in _WITHOUT_INDEX or size <= 0:
            return False
        for place in range(_STAMPS):
            try:
                container.seek(size * place // _STAMPS, stream=video, unsupported_byte_offset=True)
                packet = next(read_packets(container, video), None)
            except (av.FFmpegError, OverflowError):
                continue
            if packet is not None and packet.dts is not None:
                stamps.append(packet.dts * Fraction(packet.time_base or 0))
    steps: list[Fraction] = sorted(after - before for before, after in pairwise(stamps))
    if not steps:
        return False
    usual = max(steps[len(steps) // 2], Fraction(0))
    return steps[0] < -_STEP_BACK_S or steps[-1] > _LEAP_S + _LEAP_STEPS * usual
