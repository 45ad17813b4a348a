"""Whether a video in an S3 store is better copied whole or read in place, by requests and seconds.

    python tests/benchmarks/bench_remote.py [--seconds 30]

The store is a test server on this machine, so that seconds tell little of a real one; requests are the same.
The first file is laid out as most are, in the second all sound lies behind all pictures.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import av
import boto3
import fsspec
import numpy as np
from clips import write_clip
from moto.server import ThreadedMotoServer

from avsync_cli.batch.records import Item
from avsync_cli.batch.remote import copy_address
from avsync_cli.machine import MB

REQUESTS: list[str] = []


class Counter(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        REQUESTS.append(record.getMessage())


def make_videos(folder: Path, *, seconds: float) -> dict[str, Path]:
    rng = np.random.default_rng(0)
    grain = rng.integers(0, 255, (720, 1280, 3), np.uint8)
    sound = rng.standard_normal(round(seconds * 16_000)).astype(np.float32) / 10
    apart = write_clip(
        folder / "apart.mp4",
        seconds=seconds,
        paint=lambda number: np.roll(grain, number * 7, axis=1),
        sound=sound,
        rate=16_000,
    )
    mixed = folder / "mixed.mp4"
    with av.open(str(apart)) as source, av.open(str(mixed), "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        packets = [packet for packet in source.demux() if packet.dts is not None]
        for packet in sorted(packets, key=lambda packet: (packet.dts or 0) * packet.time_base):
            packet.stream = streams[packet.stream.index]
            target.mux(packet)
    return {"mixed": mixed, "sound behind pictures": apart}


def read(source: object) -> None:
    with av.open(source, "r") as container:
        for _ in container.demux():
            pass


def measure(name: str, action: Callable[[], None]) -> None:
    REQUESTS.clear()
    begin = time.perf_counter()
    action()
    gets = sum("GET" in request for request in REQUESTS)
    print(f"  {name}: {gets} requests, {time.perf_counter() - begin:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    os.environ |= {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    log = logging.getLogger("werkzeug")
    log.setLevel(logging.INFO)
    log.handlers, log.propagate = [Counter()], False
    store = boto3.client("s3", endpoint_url=address)
    store.create_bucket(Bucket="videos")
    with tempfile.TemporaryDirectory() as folder:
        for name, path in make_videos(Path(folder), seconds=options.seconds).items():
            size = path.stat().st_size
            store.upload_file(str(path), "videos", path.name)
            item = Item(path.name, f"s3://videos/{path.name}", size, 0.0)
            print(f"{name}, {size / MB:.0f} MB")

            def copy(item: Item = item) -> None:
                read(str(copy_address(item, Path(folder), limit_bytes=1 << 40)))

            def in_place(item: Item = item) -> None:
                with fsspec.open(item.path, "rb") as file:
                    read(file)

            measure("copied", copy)
            measure("in place", in_place)
    server.stop()


if __name__ == "__main__":
    main()
