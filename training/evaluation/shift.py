"""Move the sound inside a real file, packets untouched: the truth of a move is exact."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from avsync_cli.decoder import open_container, read_packets
from avsync_cli.errors import MediaError
from avsync_cli.spec import VIDEO_FPS

# Containers that keep the time at which each stream starts; others are remuxed into Matroska.
KEEP_STARTS = (".mp4", ".mov", ".mkv", ".webm")


def shift_audio(source: Path, folder: Path, *, frames: int) -> Path:
    """Copy a file into `folder` with its sound delayed by `frames` of 40 ms; returns the new file.

    For a negative number the pictures are delayed instead, so that no time becomes negative. Raises
    MediaError where the streams cannot be copied.
    """
    suffix = source.suffix.lower() if source.suffix.lower() in KEEP_STARTS else ".mkv"
    target = folder / f"{source.stem}.shift{frames:+d}{suffix}"
    try:
        with open_container(source) as old, av.open(str(target), "w") as new:
            kept = [stream for stream in old.streams if stream.type in ("video", "audio")]
            copies = {stream.index: new.add_stream_from_template(stream) for stream in kept}
            for packet in read_packets(old, *kept):
                if packet.size == 0:  # the demuxer's end marks; a missing dts would also drop real ones
                    continue
                _delay(packet, _delay_frames(packet.stream.type, frames))
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
    except (av.FFmpegError, ValueError, OSError) as error:
        raise MediaError(f"{source}: its streams cannot be copied: {error}") from error
    return target


def _delay_frames(kind: str, frames: int) -> int:
    return max(frames, 0) if kind == "audio" else max(-frames, 0)


def _delay(packet: "av.Packet[Any]", frames: int) -> None:
    if packet.time_base is None:
        raise ValueError("a packet has no time base")
    offset = round(Fraction(frames, VIDEO_FPS) / Fraction(packet.time_base))
    if packet.pts is not None:
        packet.pts += offset
    if packet.dts is not None:
        packet.dts += offset
