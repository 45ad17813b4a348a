"""A folder of videos without a table: which clips there are, and which of them are for validation.

A speaker is the folder that a video lies in, or the video itself where it lies in no folder below the
corpus'. All clips of a speaker are in one split, or else a network is validated on faces that it has trained
on. Which one is told by a hash of the speaker's name: it stays what it was when other speakers are added.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from avsync_cli.errors import ConfigError

VIDEO_SUFFIXES = frozenset(
    {".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".mpeg", ".mts", ".mxf", ".ogv", ".ts"}
    | {".webm", ".wmv"}
)
VAL_SHARE = 0.1  # of the speakers
_HASH_RANGE = 2**32


def list_videos(folder: Path) -> list[str]:
    """The videos in a folder and its folders, by their names relative to it; hidden ones do not count.

    Raises ConfigError where there is none.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    found = sorted(
        name.as_posix()
        for name in names
        if name.suffix.lower() in VIDEO_SUFFIXES and not any(part.startswith(".") for part in name.parts)
    )
    if not found:
        raise ConfigError(f"{folder}: neither a manifest.csv nor a video")
    return found


def speaker_of(file: str) -> str:
    """The folder of a video, or the video itself where it lies in the corpus' own."""
    parent = PurePosixPath(file).parent.as_posix()
    return file if parent == "." else parent


def split_speakers(speakers: Iterable[str], val_share: float = VAL_SHARE) -> dict[str, str]:
    """ "train" or "val" for every speaker: val for about this share of all, by a hash of the name.

    Where no or every hash is below the share, the speaker with the least or with the greatest goes to the
    other side: of several speakers there are always some on both.
    """
    places = {speaker: _place(speaker) for speaker in sorted(set(speakers))}
    splits = {speaker: "val" if place < val_share else "train" for speaker, place in places.items()}
    if len(splits) > 1 and set(splits.values()) == {"train"} and val_share > 0:
        splits[min(places, key=lambda speaker: places[speaker])] = "val"
    if len(splits) > 1 and set(splits.values()) == {"val"} and val_share < 1:
        splits[max(places, key=lambda speaker: places[speaker])] = "train"
    return splits


def _place(name: str) -> float:
    """0 or more and less than 1, the same for a name at all times."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / _HASH_RANGE
