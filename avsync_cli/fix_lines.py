"""The command lines that put a file right: that of avsync, and that of ffmpeg for those who want it."""

import os
import re

from avsync_cli.escapes import quote_name
from avsync_cli.report import Report
from avsync_cli.spec import DEFAULT_TOLERANCE, TOLERANCES

# By suffix, where ffmpeg puts the sound where it was told. It does not in AVI and MXF, and it is off by a
# frame of sound in MPEG and Ogg.
_MOV = frozenset((".m4v", ".mov", ".mp4"))
_RIGHT = _MOV | {".asf", ".flv", ".mkv", ".webm", ".wmv"}
_PLAIN = re.compile(r"[\w./\\:-]+", re.ASCII)


def avsync_command(
    report: Report, *, audio_stream: int | None = None, windows: bool = os.name == "nt"
) -> str:
    """The `avsync fix` of what was found, with the limits and for the sound that were asked about."""
    words = ["avsync fix", _quote(report.file, windows=windows)]
    words += {"steps": ["--segments"], "drift": ["--resample"]}.get(report.course or "", [])
    words += [] if audio_stream is None else [f"--audio-stream {audio_stream}"]
    default = TOLERANCES[DEFAULT_TOLERANCE]
    if report.limits_ms != (default.latest_ms, default.earliest_ms):
        words.append("--tolerance {:g},{:g}".format(*report.limits_ms))
    return " ".join(words)


def fix_command(
    file: str,
    audio_lead_ms: float,
    *,
    audio: str | None = None,
    audio_stream: int | None = None,
    windows: bool = os.name == "nt",
) -> str | None:
    """An ffmpeg command that puts the file right without re-encoding: early audio is delayed.

    None where ffmpeg does not get it right in this container, by the file's suffix. `audio` is the separate
    sound file that was checked, if any. Of several sounds only the one of number `audio_stream` is moved,
    where that is given. `windows` quotes for cmd.exe, else it is for a POSIX shell.
    """
    stem, suffix = os.path.splitext(file)
    if suffix.lower() not in _RIGHT | {""}:
        return None
    source, sound, target = (
        _quote(name, windows=windows) for name in (file, audio or file, f"{stem}.synced{suffix or '.mkv'}")
    )
    # What else MOV and MP4 call data, the titles of chapters and timecodes, ffmpeg makes anew.
    kept = "-map 0 -map -0:d" if suffix.lower() in _MOV else "-map 0"
    moved = "a" if audio_stream is None else f"a:{audio_stream}"
    streams = f"{kept} -map -0:{moved} -map 1:{'a' if audio is not None else moved}"
    delay_s = audio_lead_ms / 1000
    return f"ffmpeg -i {source} -itsoffset {delay_s:.3f} -i {sound} {streams} -c copy {target}"


def _quote(name: str, *, windows: bool) -> str:
    """A name as one word. For cmd.exe in double quotes: no file's name has those there."""
    name = f"./{name}" if name.startswith("-") else name  # would be taken for an option
    if not windows:
        return quote_name(name)
    return name if _PLAIN.fullmatch(name) else f'"{name}"'
