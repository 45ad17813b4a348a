"""LRS2 as people have it, told by its file lists: train.txt, val.txt, test.txt and pretrain.txt.

A line begins with SPEAKER/CLIP; what follows (in test.txt, NF or MV) does not matter. The clip is
    ROOT/main/SPEAKER/CLIP.mp4      as released (ROOT/pretrain/... for those of pretrain.txt), or
    ROOT/main/SPEAKER/CLIP/         as repositories of the kind of Wav2Lip prepare it: 0.jpg 1.jpg ..., the
                                    faces that a detector cut out, and audio.wav;
either may also lie in ROOT/SPEAKER itself. Where there are both, the folder of faces is taken.
"""

import re
from pathlib import Path

from avsync_cli.errors import ConfigError
from training.data.cache import CachedClip
from training.data.prepare import Task

NAME = "lrs2"
# By how a list's name begins: the split, and the folder of its clips.
LISTS = {
    "train": ("train", "main"),
    "pretrain": ("train", "pretrain"),
    "val": ("val", "main"),
    "test": ("test", "main"),
}
_CLIP = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # never out of its folder


def read_lists(root: Path, lists: list[Path]) -> list[Task]:
    """The clips that the lists name, each once; one that is not there has a reason.

    A bare name is looked for in `root` first, any other path as given first. Raises ConfigError where a list
    cannot be used, two name the same clip for different splits, or clips of `main` and `pretrain` would be
    the same file.
    """
    tasks: dict[str, Task] = {}
    folders: dict[str, str] = {}  # that a file stands for
    for path in lists:
        split, folder = _kind_of(path)
        for number, clip in _read_list(_find_list(root, path)):
            place = _find(root, folder, clip)
            file = f"{folder}/{clip}" if place is None else place.relative_to(root).as_posix()
            if folders.setdefault(file, folder) != folder:
                raise ConfigError(
                    f"{path.name}, line {number}: {clip} of {folder} and {folders[file]} would be one {file}"
                )
            reason = f"{path.name}, line {number}: no such video or folder" if place is None else None
            entry = CachedClip(file, split, NAME, NAME, machine_made=False, lead_frames=0.0, reason=reason)
            if tasks.setdefault(file, Task(entry, root / file, 1.0)).entry.split != split:
                raise ConfigError(f"{path.name}, line {number}: {clip} is listed for another split too")
    return list(tasks.values())


def _kind_of(path: Path) -> tuple[str, str]:
    for name, kind in LISTS.items():
        if path.name.startswith(name):
            return kind
    raise ConfigError(f"{path}: a list's name must begin with {', '.join(LISTS)}")


def _find_list(root: Path, path: Path) -> Path:
    places = (path, root / path) if path.parent.parts else (root / path, path)
    return next((place for place in places if place.exists()), root / path)


def _read_list(path: Path) -> list[tuple[int, str]]:
    """Line numbers and SPEAKER/CLIP. Raises ConfigError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read") from error
    named = [(number, line.split()[0]) for number, line in enumerate(lines, 1) if line.strip()]
    for number, clip in named:
        if not _CLIP.fullmatch(clip):
            raise ConfigError(f"{path}, line {number}: {clip!r} is not SPEAKER/CLIP")
    return named


def _find(root: Path, folder: str, clip: str) -> Path | None:
    places = (root / folder / clip, root / clip)
    videos = [place.with_name(f"{place.name}.mp4") for place in places]
    found = [place for place in places if place.is_dir()] + [video for video in videos if video.is_file()]
    return found[0] if found else None
