"""Sound played a little faster or slower, so that a drift goes away: the one thing that is encoded again.

The resampler is told by the times of the frames where each belongs, and stretches what lies between.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.filter import Graph

from avsync_cli.gate import keep_layout
from avsync_cli.sound import time_of

if TYPE_CHECKING:
    from avsync_cli.copies import Packet

_ENCODERS = {"mp3": "libmp3lame", "opus": "libopus", "vorbis": "libvorbis"}  # better than those of that name
_MOST_COMPENSATION_HZ = 1000  # samples a second, of 48,000: several times what the steepest drift needs
_LEAST_COMPENSATION_S = 0.0005  # that the sound may be off before the resampler does something
_NO_CUT_S = 30  # off by less, sound is stretched and neither cut nor filled


@dataclass(frozen=True)
class Drift:
    """An audio lead of `start_s` seconds at the first picture that grows by `slope` seconds a second."""

    start_s: Fraction
    slope: Fraction

    def lead_at(self, time_s: Fraction) -> Fraction:
        return self.start_s + self.slope * time_s

    def picture_time(self, sound_s: Fraction) -> Fraction:
        """When the picture is shown that a sound belongs to, both counted from the first picture."""
        return (sound_s + self.start_s) / (1 - self.slope)


class Stretcher:
    """Codes a sound again so that it does not drift (see `remux.SoundCoder`).

    `origin_s` is when the first picture is shown. Raises ValueError where there is no encoder for its codec.
    """

    def __init__(
        self, given: AudioStream, output: OutputContainer, origin_s: Fraction, *, drift: Drift
    ) -> None:
        context = given.codec_context
        if context is None:
            raise ValueError("the codec of the sound is not known")
        codec = context.codec.canonical_name
        try:
            encoder = av.Codec(_ENCODERS.get(codec, codec), "w").name
        except ValueError as error:
            raise ValueError(f"there is no encoder for {codec} here") from error
        self.made = cast(AudioStream, output.add_stream(encoder, rate=context.sample_rate))
        self.made.codec_context.layout = keep_layout(context)
        if given.bit_rate:
            self.made.codec_context.bit_rate = given.bit_rate
        self._given, self._drift, self._origin_s = given, drift, origin_s
        self._graph: Graph | None = None

    def code(self, packet: "Packet") -> "list[Packet]":
        """What is to be written of the sound up to this packet; the empty packet brings the rest."""
        coded: list[Packet] = []
        for frame in packet.decode():
            if isinstance(frame, av.AudioFrame):
                coded += self._push(frame)
        if not packet.size and self._graph is not None:
            self._graph.push(None)
            coded += self._pull(self._graph)
            coded += self.made.encode(None)
        return coded

    def _push(self, frame: av.AudioFrame) -> "list[Packet]":
        time_s = self._drift.picture_time(time_of(frame) - self._origin_s) + self._origin_s
        frame.time_base = Fraction(1, frame.sample_rate)
        frame.pts = round(time_s * frame.sample_rate)
        if self._graph is None:
            self._graph = _build_graph(frame)
        self._graph.push(frame)
        return self._pull(self._graph)

    def _pull(self, graph: Graph) -> "list[Packet]":
        coded: list[Packet] = []
        while True:
            try:
                frame = graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return coded
            if isinstance(frame, av.AudioFrame):
                coded += self.made.encode(frame)


def _build_graph(frame: av.AudioFrame) -> Graph:
    graph = Graph()
    source = graph.add_abuffer(
        sample_rate=frame.sample_rate,
        format=frame.format.name,
        layout=frame.layout.name,
        time_base=Fraction(1, frame.sample_rate),
    )
    options = f"async={_MOST_COMPENSATION_HZ}:min_comp={_LEAST_COMPENSATION_S}:min_hard_comp={_NO_CUT_S}"
    stretch, sink = graph.add("aresample", options), graph.add("abuffersink")
    source.link_to(stretch)
    stretch.link_to(sink)
    graph.configure()
    return graph
