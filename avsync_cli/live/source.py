"""What `avsync watch` may watch, and how each of these is opened: no more than what was named.

A file or pipe may lead to nothing else. An address may lead to the network by the protocols of its own kind,
as an HLS playlist does, and never to a file of this machine.
"""

import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from threading import Event
from types import MappingProxyType
from typing import Literal

import av
from av.container import InputContainer

from avsync_cli.decoder import describe_fault, naming_faults, open_container
from avsync_cli.errors import ConfigError, MediaError, first_line
from avsync_cli.gate import container_options, refuse_other_sources

Kind = Literal["file", "pipe", "network", "device"]

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
# What follows "?" or "#", and a password: also one with "/", "?" or "#" in it, though that is no address.
_SECRET = re.compile(r"(?<=://)(?:[^/?#]*@|[^@/?#\[\]]*:(?!\d+(?:[/?#]|$)).*@)|[?#].*", re.DOTALL)
_WEB = ("http", "https", "tcp", "tls", "crypto", "httpproxy")
# What an address of a scheme may be read with, and what formats of several addresses it may be.
_PROTOCOLS = MappingProxyType(
    {
        "http": _WEB,
        "https": _WEB,
        "rtmp": ("rtmp", "tcp"),
        "rtmps": ("rtmps", "tcp", "tls"),
        "rtp": ("rtp", "udp"),
        "rtsp": ("rtsp", "rtp", "udp", "tcp"),
        "rtsps": ("rtsps", "rtsp", "rtp", "udp", "tcp", "tls"),
        "srt": ("srt",),
        "tcp": ("tcp",),
        "udp": ("udp",),
    }
)
_LISTS = MappingProxyType(
    {"http": ("hls",), "https": ("hls",), "rtp": ("rtp", "sdp"), "rtsp": ("rtsp", "rtp", "sdp")}
)
_OPTIONS = MappingProxyType(
    {
        "rtsp": {"rtsp_flags": "prefer_tcp"},
        "udp": {"overrun_nonfatal": "1", "fifo_size": "50000", "buffer_size": "1000000"},
    }
)
_DEVICES = ("avfoundation", "dshow", "v4l2")
_SOUND_DEVICES = ("alsa", "avfoundation", "dshow", "pulse")
_PROBE_US = "3000000"  # of a stream, at most, to find out what is in it
_POLL_S = 0.1


@dataclass(frozen=True)
class Source:
    """What is watched. Raises ConfigError for what cannot be.

    `address` is a path, "-", an address, or with `form` a device; `sound` is another device that has the
    sound, of the format `sound_form`. A file is taken to grow until nothing was added for `wait_s`; a
    connection that gives nothing for `timeout_s` is taken to be lost.
    """

    address: str
    form: str | None = None
    sound: str | None = None
    sound_form: str | None = None
    wait_s: float = 10.0
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if self.form is not None and self.form not in _DEVICES:
            raise ConfigError(f"--format {self.form}: is for cameras: {', '.join(_DEVICES)}")
        if self.sound_form is not None and self.sound_form not in _SOUND_DEVICES:
            raise ConfigError(f"--sound-format {self.sound_form}: may be {', '.join(_SOUND_DEVICES)}")
        if (self.sound is None) != (self.sound_form is None) or (self.sound and self.form is None):
            raise ConfigError("--sound and --sound-format name the microphone of a camera: with --format")
        if not (0 <= self.wait_s < 1e6 and 0 < self.timeout_s < 1e6):
            raise ConfigError("--wait must be 0 or more, --timeout above 0, in seconds")
        scheme = self.scheme
        if self.form is None and scheme is not None and scheme not in _PROTOCOLS:
            raise ConfigError(f"{self.name}: {scheme} is none of {', '.join(sorted(_PROTOCOLS))}")

    @property
    def scheme(self) -> str | None:
        found = _SCHEME.match(self.address)
        return None if found is None else found.group(1).lower()

    @property
    def kind(self) -> Kind:
        if self.form is not None:
            return "device"
        if self.scheme is not None:
            return "network"
        if self.address == "-" or _is_pipe(Path(self.address)):
            return "pipe"
        return "file"

    @property
    def name(self) -> str:
        """The address without what may be secret in it: a password, and what follows "?" or "#"."""
        return _SECRET.sub("", self.address) if "://" in self.address else self.address


@contextmanager
def open_source(source: Source, stop: Event) -> Iterator[InputContainer]:
    """Open what is watched, without the sound of another device. Raises MediaError."""
    if source.kind == "file" and not _is_growing(Path(source.address), source.wait_s):
        with open_container(source.address) as container:
            yield container
        return
    options = container_options()
    if source.kind == "network":
        with _opened(source.name, source.address, options | _network_options(source), source) as container:
            yield container
    elif source.kind == "device":
        with _opened(source.name, source.address, _device_options(source.form), source) as container:
            yield container
    else:
        if source.kind == "file":
            refuse_other_sources(Path(source.address))
        with _open_bytes(source) as file:
            growing = GrowingFile(file, stop, source.wait_s if source.kind == "file" else 0.0)
            with _opened(source.name, growing, options, source) as container:
                yield container


@contextmanager
def open_sound(source: Source) -> Iterator[InputContainer]:
    """Open the microphone beside a camera. Raises MediaError."""
    microphone = Source(source.sound or "", "v4l2", timeout_s=source.timeout_s)
    with _opened(microphone.name, microphone.address, {}, microphone, form=source.sound_form) as container:
        yield container


class GrowingFile:
    """A file to read from while another program writes it, from beginning to end, and no seeking."""

    def __init__(self, file: FileIO, stop: Event, wait_s: float) -> None:
        self._file = file
        self._stop = stop
        self._wait_s = wait_s
        self._grew = time.monotonic()
        self.name = ""

    def read(self, most: int) -> bytes:
        """Up to so many bytes, nothing at the end: when nothing was added for long."""
        while not self._stop.is_set():
            data = self._file.read(most)
            if data:
                self._grew = time.monotonic()
                return data
            if time.monotonic() - self._grew >= self._wait_s:
                return b""
            self._stop.wait(_POLL_S)
        return b""


@contextmanager
def _opened(
    name: str,
    what: str | GrowingFile,
    options: dict[str, str],
    source: Source,
    *,
    form: str | None = None,
) -> Iterator[InputContainer]:
    is_bytes = isinstance(what, GrowingFile)
    try:
        container = av.open(
            what,
            "r",
            format=form or source.form,
            options=options,
            metadata_errors="replace",
            timeout=None if is_bytes else source.timeout_s,
        )
    except av.error.ProtocolNotFoundError:
        hint = "another program can pipe it: avsync watch -"
        raise MediaError(f"{name}: this FFmpeg has no {source.scheme}; {hint}") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"{name}: {describe_fault(error)}") from error
    with naming_faults(container, name):
        yield container


def _network_options(source: Source) -> dict[str, str]:
    scheme = source.scheme or ""
    formats = [container_options()["format_whitelist"], *_LISTS.get(scheme.removesuffix("s"), ())]
    return {
        "protocol_whitelist": ",".join(_PROTOCOLS[scheme]),
        "format_whitelist": ",".join(formats),
        "analyzeduration": _PROBE_US,
        **_OPTIONS.get(scheme.removesuffix("s"), {}),
    }


def _device_options(form: str | None) -> dict[str, str]:
    # Of the clocks that a camera may have, the one that its microphone has, too.
    return {"timestamps": "abs"} if form == "v4l2" else {}


@contextmanager
def _open_bytes(source: Source) -> Iterator[FileIO]:
    # Without buffers: their locks would keep Python from ending while a pipe gives nothing.
    is_input = source.address == "-"
    try:
        file = open(  # noqa: SIM115 - the error of opening alone is told
            0 if is_input else source.address, "rb", buffering=0, closefd=not is_input
        )
    except OSError as error:
        raise MediaError(f"{source.name}: {first_line(error)}") from error
    with file:
        yield file


def _is_pipe(path: Path) -> bool:
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _is_growing(path: Path, wait_s: float) -> bool:
    """Whether something was added to a file not long ago."""
    try:
        return path.is_file() and time.time() - path.stat().st_mtime < wait_s
    except (OSError, ValueError):
        return False
