"""Long files from short ones, packet by packet: nothing is painted or encoded twice."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av


def join_clips(path: Path, parts: Iterable[tuple[Path, Fraction]]) -> Path:
    """One file of clips made alike, each lasting as given; a clip may come as often as it likes.

    What sounds beyond its clip's end, or before its beginning, is left out.
    """
    begin_s = Fraction(0)
    with av.open(str(path), "w") as joined:
        streams: dict[str, av.stream.Stream] = {}
        for part, lasts_s in parts:
            with av.open(str(part)) as clip:
                for stream in (clip.streams.video[0], clip.streams.audio[0]):
                    if stream.type not in streams:
                        streams[stream.type] = joined.add_stream_from_template(stream)
                for packet in clip.demux():
                    if packet.pts is None or not 0 <= packet.pts * packet.time_base < lasts_s:
                        continue
                    shift = round(begin_s / packet.time_base)
                    packet.pts += shift
                    if packet.dts is not None:
                        packet.dts += shift
                    packet.stream = streams[packet.stream.type]
                    joined.mux(packet)
            begin_s += lasts_s
    return path
