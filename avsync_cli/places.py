"""A file read in places: pictures from the keyframe before each, the sound around it, and nothing between.

The file is opened twice, because pictures and sound lie apart in many files, and because the sound of a
place is heard before it is known whether its pictures are worth decoding.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from time import perf_counter
from typing import Any

import av
from av.container import InputContainer

from avsync_cli.media import open_container
from avsync_cli.pictures import Picture, TimedFrame, show_pictures
from avsync_cli.sound import Recorder, Sound, cut_sound, is_break, time_of
from avsync_cli.spec import VIDEO_FPS
from avsync_cli.streams import decode_packets, main_audio, main_video, presentation_s
from avsync_cli.timing import tick_time

_SEARCH_PACKETS = 5_000  # among which there must be a keyframe after a seek
_UNSURE_TICKS = 15  # after a seek in MPEG-PS, where only some pictures say when they are to be shown
_LATE_S = 2  # by which a seek may miss its aim; further off, the file's index is not to be trusted
_LEAD_IN_S = Fraction(1, 2)  # of sound that decoders need before what is wanted
_LATE_SOUND_S = 30  # of pictures past a place, after which its sound is not to be expected
_BACK_S = (0, 12, 36)  # before an aim, where to seek one after the other until a keyframe lies before it
_MAX_APPROACH_S = 1.0  # after which no other seek is tried; in a damaged file one may take many
_FAR_S = 10**9  # later than any file ends


class Places:
    """Two open handles on one file, and the clock of its first picture. Use `open_places`."""

    def __init__(
        self, pictures: InputContainer, sound: InputContainer, *, threads: int, audio_stream: int | None
    ) -> None:
        self._pictures, self._sound = pictures, sound
        self._video = main_video(pictures)
        self._audio = main_audio(sound, audio_stream)
        self._packets: Iterator[av.Packet[Any]] = iter(())
        self._key_s: Fraction | None = None
        self._sound_comes_late: bool | None = None  # far behind its pictures; None while that is not known
        self.decoded_pictures = 0
        self._origin_s: Fraction | None = None
        if self._video is not None:
            self._video.thread_type = "AUTO"
            self._video.codec_context.thread_count = threads
            self._packets = pictures.demux(self._video)
            self._origin_s = next((time_s for time_s, _ in self._decode(None)), None)

    def measure_s(self) -> float | None:
        """Seconds from the first picture to the last that the file has; None where it cannot be searched.

        For files that do not declare how long they are. Packets are read from the last keyframe on, or all
        of them where there is no index, but none is decoded.
        """
        if self._video is None or self._origin_s is None:
            return None
        try:
            self._pictures.seek(math.floor(_FAR_S / Fraction(self._video.time_base or 1)), stream=self._video)
            stamps = [packet.pts for packet in self._pictures.demux(self._video) if packet.pts is not None]
        except (av.FFmpegError, OverflowError):
            return None
        if not stamps:
            return None
        return float(max(stamps) * Fraction(self._video.time_base or 0) - self._origin_s)

    def approach(self, tick: int) -> int | None:
        """Go to the last keyframe at or before a tick: the first tick that `pictures` can then show.

        None where the file cannot be searched, or not be trusted to be where it says.
        """
        if self._video is None or self._origin_s is None:
            return None
        aim_s = self._origin_s + tick_time(tick)
        began = perf_counter()
        for back_s in _BACK_S:
            if perf_counter() - began > _MAX_APPROACH_S:
                return None
            begin = self._find_key(aim_s, back_s)
            key_s = _packet_s(begin[0]) if begin else None
            late_s = _LATE_S if back_s == _BACK_S[-1] else 0
            if key_s is not None and key_s <= aim_s + late_s:
                break
        else:
            return None
        self._key_s, self._packets = key_s, chain(begin, self._packets)
        unsure = _UNSURE_TICKS if tick > 0 and self._pictures.format.name == "mpeg" else 0
        return max(0, math.ceil((key_s - self._origin_s) * VIDEO_FPS)) + unsure

    def _find_key(self, aim_s: Fraction, back_s: int) -> "list[av.Packet[Any]]":
        """Seek to some seconds before an aim, and read from a keyframe on; without one the list is empty.

        At once it is the first that comes, as the index promises; further back the last before the aim.
        """
        found: list[av.Packet[Any]] = []
        try:
            offset = math.floor((aim_s - back_s) / Fraction((self._video and self._video.time_base) or 1))
            self._pictures.seek(offset, stream=self._video)
            self._packets = self._pictures.demux(self._video)
            for packet in islice(self._packets, _SEARCH_PACKETS):
                time_s = _packet_s(packet)
                if packet.is_keyframe and (not found or (time_s is not None and time_s <= aim_s)):
                    found = []
                if found or packet.is_keyframe:
                    found.append(packet)
                if found and (back_s == 0 or (time_s is not None and time_s > aim_s)):
                    break
        except (av.FFmpegError, OverflowError):
            return []
        return found

    def pictures(self, first_tick: int, end_tick: int) -> Iterator[Picture]:
        """One picture a tick of [first_tick, end_tick), decoded from the keyframe that was approached."""
        if self._video is not None and self._origin_s is not None:
            yield from show_pictures(
                self._decode(self._origin_s + tick_time(end_tick)),
                self._video.sample_aspect_ratio,
                first_tick=first_tick,
                stop_tick=end_tick,
            )

    def sound(self, first_tick: int, end_tick: int) -> Sound | None:
        """The sound of the ticks [first_tick, end_tick), or what there is of it."""
        if self._audio is None or self._origin_s is None:
            return None
        first_s, end_s = (self._origin_s + tick_time(tick) for tick in (first_tick, end_tick))
        if self._is_silent(first_s):
            return None
        recorder = Recorder()
        try:
            self._seek_sound(first_s - _LEAD_IN_S)
            for frame in decode_packets(self._sound_packets(first_s - _LEAD_IN_S, end_s)):
                if isinstance(frame, av.AudioFrame):
                    if recorder.is_break(frame) or time_of(frame) >= end_s:
                        break
                    recorder.add(frame)
        except (av.FFmpegError, OverflowError):
            return None
        sound = recorder.sound(self._origin_s)
        return None if sound is None else cut_sound(sound, first_tick, end_tick)

    def _sound_packets(self, first_s: Fraction, end_s: Fraction) -> "Iterator[av.Packet[Any]]":
        """Packets of sound from a time on, up to where the pictures show that no more can be expected.

        A sound may end long before its pictures, so that there is nothing to wait for; or all of it may lie
        behind them. The first place without sound is searched to the end of the file, to know which.
        """
        heard = late = False
        for packet in self._sound.demux([each for each in (self._audio, main_video(self._sound)) if each]):
            time_s = _packet_s(packet)
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

    def _seek_sound(self, time_s: Fraction) -> None:
        """MP4 knows where each sound lies; most others find their way by their pictures alone."""
        stream = self._audio if "mov" in self._sound.format.name else main_video(self._sound)
        if stream is not None:
            unit_s = Fraction(stream.time_base or 1)
            self._sound.seek(max(math.floor(time_s / unit_s), stream.start_time or 0), stream=stream)

    def _decode(self, end_s: Fraction | None) -> Iterator[TimedFrame]:
        """Pictures from the keyframe approached to one past the end; those before it lack references."""
        step_s = 1 / Fraction((self._video and self._video.average_rate) or VIDEO_FPS)
        last_s: Fraction | None = None
        for frame in decode_packets(self._packets):
            if not isinstance(frame, av.VideoFrame):
                continue
            self.decoded_pictures += 1
            time_s = presentation_s(frame, last_s, step_s)
            if last_s is not None and is_break(time_s, last_s):
                return
            earliest_s = time_s if self._key_s is None else self._key_s
            if time_s < earliest_s or (last_s is not None and time_s <= last_s):
                continue
            last_s = time_s
            yield time_s - (self._origin_s or 0), frame
            if end_s is not None and time_s > end_s:
                return


def _packet_s(packet: "av.Packet[Any]") -> Fraction | None:
    """When a packet is to be shown or heard, on the file's clock, or read where it does not say."""
    stamp = packet.dts if packet.pts is None else packet.pts
    return None if stamp is None else stamp * Fraction(packet.time_base or 0)


@contextmanager
def open_places(path: str | Path, *, threads: int = 0, audio_stream: int | None = None) -> Iterator[Places]:
    """Open a file to be read in places. Raises MediaError, also where it has no such sound."""
    with open_container(path) as pictures, open_container(path) as sound:
        yield Places(pictures, sound, threads=threads, audio_stream=audio_stream)
