"""Streams on the loopback interface: a clip sent round and round, with what goes wrong on the way."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any

import av

_HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n"


@dataclass(frozen=True)
class Airing:
    """What one connection is sent: a clip for `seconds`, at its own pace or at once.

    What is paced is sent `ahead_s` before its time. With `silent` the connection is left open behind it, as
    by a sender that hangs.

    At the first whole picture from `jump_at_s` on the clock jumps by `jump_s`. From `drop_at_s` on nothing is
    sent for `drop_s`, and what belongs there is lost.
    """

    clip: Path
    seconds: float
    paced: bool = False
    ahead_s: float = 0.0
    silent: bool = False
    jump_at_s: float = float("inf")
    jump_s: float = 0.0
    drop_at_s: float = float("inf")
    drop_s: float = 0.0


class _Sink:
    """What a muxer writes to."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self._send = send

    def write(self, data: bytes) -> int:
        self._send(bytes(data))
        return len(data)


def send_airing(airing: Airing, send: Callable[[bytes], object], is_over: Event | None = None) -> None:
    """Send one airing, as MPEG-TS, to its end or until it `is_over`."""
    begin = time.monotonic()
    with av.open(_Sink(send), "w", format="mpegts", options={"flush_packets": "1"}) as out:
        streams = {}
        with av.open(str(airing.clip)) as clip:
            for stream in clip.streams:
                streams[stream.index] = out.add_stream_from_template(stream)
        for packet, sent_s in _rounds(airing):
            if is_over is not None and is_over.is_set():
                return
            if airing.paced:
                time.sleep(max(0.0, begin + sent_s - airing.ahead_s - time.monotonic()))
            if not airing.drop_at_s <= sent_s < airing.drop_at_s + airing.drop_s:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)


def _rounds(airing: Airing) -> "Iterator[tuple[av.Packet[Any], float]]":
    """The packets of the clip, again and again, each at its time, and its seconds after the first."""
    with av.open(str(airing.clip)) as clip:
        length_s = Fraction(clip.duration or 0, av.time_base)
        first_s = Fraction(clip.start_time or 0, av.time_base)
    jumped = False
    for number in count():
        with av.open(str(airing.clip)) as clip:
            for packet in clip.demux():
                if packet.dts is None or packet.pts is None or packet.time_base is None:
                    continue
                unit_s = packet.time_base
                sent_s = packet.dts * unit_s - first_s + number * length_s
                if sent_s >= airing.seconds:
                    return
                is_whole = packet.is_keyframe and packet.stream.type == "video"
                jumped = jumped or (is_whole and sent_s >= airing.jump_at_s)
                moved_s = number * length_s + (Fraction(airing.jump_s) if jumped else 0)
                packet.pts += round(moved_s / unit_s)
                packet.dts += round(moved_s / unit_s)
                yield packet, float(sent_s)


@contextmanager
def serve(airings: list[Airing], *, scheme: str = "tcp") -> Iterator[str]:
    """The address of a server that gives each connection the next airing; behind the last, none listens."""
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]

    def run() -> None:
        with server, suppress(OSError):  # the test may be over before all have come
            for number, airing in enumerate(airings, 1):
                connection, _ = server.accept()
                if number == len(airings):
                    server.close()  # now: who has heard all of the last one finds nobody
                with connection, suppress(OSError, av.FFmpegError):
                    if scheme == "http":
                        connection.recv(4096)
                        connection.sendall(_HEAD)
                    send_airing(airing, connection.sendall)
                    if airing.silent:
                        _wait_for_end(connection, is_over)

    is_over = Event()
    thread = Thread(target=run, daemon=True)
    thread.start()
    yield f"{scheme}://127.0.0.1:{port}" + ("/live.ts" if scheme == "http" else "")
    is_over.set()
    with suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def _wait_for_end(connection: socket.socket, is_over: Event) -> None:
    """Until the other side has closed it, or the test is over."""
    connection.settimeout(0.1)
    while not is_over.is_set():
        with suppress(TimeoutError):
            if not connection.recv(4096):
                return


@contextmanager
def send_udp(airing: Airing) -> Iterator[tuple[str, Callable[[], None]]]:
    """Where an airing comes as datagrams, of as many packets as MPEG-TS puts into one, and what ends it.

    It is under way before anyone listens, as what is broadcast is.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sender, is_over = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), Event()

    def send(data: bytes) -> None:
        for first in range(0, len(data), 7 * 188):
            with suppress(OSError):
                sender.sendto(data[first : first + 7 * 188], ("127.0.0.1", port))

    thread = Thread(target=send_airing, args=(airing, send, is_over), daemon=True)
    thread.start()
    yield f"udp://127.0.0.1:{port}", is_over.set
    is_over.set()
    thread.join(60)
    sender.close()
