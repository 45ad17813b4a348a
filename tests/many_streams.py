"""Media with more than a picture and a sound, made packet by packet, and what a file holds, read apart."""

import hashlib
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.stream import Disposition
from clips import barcode, click_track

FONT = b"\0\1\0\0" + bytes(range(256))
MS = Fraction(1, 1000)


def write_many_streams(
    path: Path, *, clicks_s: tuple[float, ...] = (0.5, 1.0, 1.5), seconds: float = 2.0
) -> Path:
    """A picture with B-frames, turned by 90 degrees, two sounds, titles, chapters, a cover, and where
    the container has them a font (Matroska) or a timecode (MOV, MP4)."""
    is_mov = path.suffix in (".mp4", ".mov")
    with av.open(str(path), "w") as container:
        container.metadata.update({"title": "A title", "artist": "Somebody"})
        video = container.add_stream("libx264", rate=25, options={"preset": "veryfast", "bf": "2"})
        video.width, video.height, video.pix_fmt = 192, 128, "yuv420p"
        video.codec_context.time_base = Fraction(1, 25)
        video.set_display_rotation(90)
        sounds = [container.add_stream("aac", rate=48_000, layout="mono") for _ in range(2)]
        sounds[0].metadata["language"], sounds[1].metadata["language"] = "eng", "deu"
        sounds[0].disposition, sounds[1].disposition = Disposition(0), Disposition.default
        titles = container.add_mux_stream("mov_text" if is_mov else "subrip", time_base=MS)
        titles.metadata["language"] = "fra"
        cover = _add_cover(container, is_mov=is_mov)
        if not is_mov:
            container.add_attachment("font.ttf", "application/x-truetype-font", FONT)
        else:
            video.metadata["timecode"] = "10:00:00:00"
        whole, half = (round(seconds * share / MS) for share in (1, Fraction(1, 2)))
        ends = ((0, half, "one"), (half, whole, "two"))
        container.set_chapters(
            [
                {"id": number, "start": start, "end": end, "time_base": MS, "metadata": {"title": title}}
                for number, (start, end, title) in enumerate(ends, 1)
            ]
        )
        for number in range(round(seconds * 25)):
            frame = av.VideoFrame.from_ndarray(barcode(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if cover is not None:
            container.mux(cover)
        for number, stream in enumerate(sounds):
            samples = click_track(clicks_s, seconds=seconds, rate=48_000) * (1 - 0.2 * number)
            tone = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            tone.sample_rate, tone.pts, tone.time_base = 48_000, 0, Fraction(1, 48_000)
            container.mux([*stream.encode(tone), *stream.encode(None)])
        for start, text in ((200, b"hello"), (1200, b"goodbye")):
            packet = av.Packet(len(text).to_bytes(2, "big") + text if is_mov else text)
            packet.pts = packet.dts = start
            packet.duration, packet.time_base, packet.stream = 500, MS, titles
            packet.is_keyframe = True
            container.mux(packet)
    return path


def _add_cover(container: OutputContainer, *, is_mov: bool) -> "av.Packet[Any] | None":
    picture = np.full((32, 32, 3), (40, 40, 200), np.uint8)
    data = cv2.imencode(".png", picture)[1].tobytes()
    if not is_mov:
        container.add_attachment("cover.png", "image/png", data)
        return None
    stream = container.add_mux_stream("png", width=32, height=32, time_base=MS)
    stream.disposition = Disposition.attached_pic
    packet = av.Packet(data)
    packet.pts = packet.dts = 0
    packet.time_base, packet.stream, packet.is_keyframe = MS, stream, True
    return packet


def hash_packets(path: Path) -> Counter[tuple[str, str, str] | str]:
    """How often the file has a stream of this kind, codec and packets; empty titles do not count."""
    with av.open(str(path)) as container:
        streams = {stream.index: (stream.type, stream.name, hashlib.md5()) for stream in container.streams}
        for packet in container.demux():
            if packet.size and bytes(packet) != b"\0\0":
                streams[packet.stream_index][2].update(bytes(packet))
        attachments = [hashlib.md5(stream.data).hexdigest() for stream in container.streams.attachments]
        packets = [(str(kind), str(name), digest.hexdigest()) for kind, name, digest in streams.values()]
        return Counter([*packets, *attachments])
