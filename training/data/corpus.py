"""The corpus as a table: which clips there are, and how far each one's sound must be moved.

Without a table, or where it leaves out columns, a folder of videos is read by the rules of `COLUMNS`.
"""

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from avsync_cli.errors import ConfigError
from avsync_cli.spec import FRAME_MS
from training.data.footage import VAL_SHARE, list_videos, speaker_of, split_speakers

MANIFEST = "manifest.csv"
CORRECTIONS = Path(__file__).parents[1] / "corpus_corrections.csv"
CORRECTION_COLUMNS = ("file", "advance_ms", "keep", "confidence", "reason")
MIN_CLIP_CONFIDENCE = 0.2  # below this the prototype's estimate of a single clip is not used

# Every column of a manifest, and what it means that it is missing or empty.
COLUMNS = {
    "file": "needed: the video, relative to the folder",
    "split": "train, val or test; else val for a share of the speakers, by a hash of their names",
    "speaker": "who is seen; else the folder of the video, or the video itself",
    "source": "where it comes from, whose clips share an offset; else the folder of the video",
    "machine_made": "yes or no; else no",
    "seconds": "length; else 1, as only the display of progress needs it",
    "audio_rate": "sample rate in Hz; else 48000",
    "source_lead_frames": "audio lead in 25-fps frames that all clips of the source share; else not known",
    "clip_lead_frames": "estimate of the clip's own lead; else not known",
    "clip_confidence": "of that estimate, 0 to 1; below 0.2 it is not used; else 0",
    "origin": "what kind of recording it is, as `zero` tells them apart; else nothing",
}
_SPLITS = ("train", "val", "test")
_ROOT = "footage"  # domain and source of what lies in no folder


T = TypeVar("T", str, int, float)


@dataclass(frozen=True)
class Clip:
    """One clip of the corpus.

    `lead_frames` is its audio lead in 25-fps frames (ITU sign), which training takes out of it;
    `source_lead_frames` is what its source's clips share, None where they differ; `left_out` says why
    a clip is not to be used.
    """

    file: str
    split: str
    source: str
    machine_made: bool
    seconds: float
    audio_rate: int
    lead_frames: float
    source_lead_frames: float | None
    left_out: str | None = None
    origin: str = ""

    @property
    def domain(self) -> str:
        first, slash, _ = self.file.partition("/")
        return first if slash else _ROOT


@dataclass(frozen=True)
class Correction:
    """What an audit found for one file: its audio lead, and whether to keep it at all.

    `confidence` is the weight, 0 to 1, that the clip's own estimate has beside that of its group.
    """

    advance_ms: float
    keep: bool
    reason: str
    confidence: float = 0.0


def read_corpus(
    corpus: Path, *, corrections: Path | None = CORRECTIONS, val_share: float | None = None
) -> list[Clip]:
    """The clips of a corpus folder. Raises ConfigError where its tables cannot be used.

    `val_share` is the share of the speakers to validate on, where the table does not say. The repository's
    own corrections are passed over where they know no clip of this corpus.
    """
    audited = {} if corrections is None else known_corrections(corrections)
    rows = read_manifest_rows(corpus)
    if val_share is not None and all(row.get("split") for row in rows):
        raise ConfigError(f"{corpus / MANIFEST}: says the split of every clip; leave out --val-share")
    speakers = {row["file"]: row.get("speaker") or speaker_of(row["file"]) for row in rows}
    splits = split_speakers(speakers.values(), VAL_SHARE if val_share is None else val_share)
    clips = [
        _clip(row, audited.get(row["file"]), split=splits[speakers[row["file"]]], where=corpus / MANIFEST)
        for row in rows
    ]
    unknown = audited.keys() - {clip.file for clip in clips}
    of_another_corpus = corrections == CORRECTIONS and len(unknown) == len(audited)
    if unknown and not of_another_corpus:
        raise ConfigError(f"{corrections}: lists {sorted(unknown)[0]}, which the corpus does not have")
    return clips


def known_corrections(path: Path) -> dict[str, Correction]:
    """Corrections by file. The repository's own table may be missing; any other may not: ConfigError."""
    return {} if path == CORRECTIONS and not path.exists() else read_corrections(path)


def read_corrections(path: Path) -> dict[str, Correction]:
    """Corrections by file, from a table with the columns `CORRECTION_COLUMNS`; keep is yes or no."""
    found = {}
    for row in _rows(path):
        try:
            keep = {"yes": True, "no": False}[row["keep"]]
            advance_ms, confidence = float(row["advance_ms"] or 0), float(row.get("confidence") or 0)
            found[row["file"]] = Correction(advance_ms, keep, row["reason"], confidence)
        except (KeyError, ValueError, TypeError) as error:
            raise ConfigError(f"{path}: bad row for {row.get('file')!r}") from error
    return found


def read_manifest_rows(corpus: Path) -> list[dict[str, str]]:
    """The rows of a corpus' manifest, or one for each of its videos where it has none. Raises ConfigError.

    Each has a `file` inside the folder, and each file is there once.
    """
    path = corpus / MANIFEST
    if not path.exists():
        return [{"file": file} for file in list_videos(corpus)]
    rows = list(_rows(path))
    if not rows:
        raise ConfigError(f"{path}: lists no clip")
    seen = set()
    for number, row in enumerate(rows, 2):  # the first line holds the columns
        file = row.get("file")
        if not file:
            raise ConfigError(
                f"{path}, line {number}: 'file' is missing; it is the one column that must be there"
            )
        place = PurePosixPath(file)
        if place.is_absolute() or ".." in place.parts or not place.name:
            raise ConfigError(f"{path}, line {number}: file {file!r} does not lie in {corpus}")
        if file in seen:
            raise ConfigError(f"{path}, line {number}: {file} is listed twice")
        seen.add(file)
    return rows


def _clip(row: dict[str, str], correction: Correction | None, *, split: str, where: Path) -> Clip:
    def number(name: str, default: float | None, *, least: float = -math.inf) -> float | None:
        return _checked(row, name, float, where, default, lambda x: math.isfinite(x) and x >= least)

    rate = _checked(row, "audio_rate", int, where, 48_000, lambda x: x > 0)
    machine_made = _checked(row, "machine_made", str, where, "no", lambda x: x in ("yes", "no"))
    source_lead, clip_lead = number("source_lead_frames", None), number("clip_lead_frames", None)
    seconds, confidence = number("seconds", 1.0, least=0), number("clip_confidence", 0.0)
    folder = PurePosixPath(row["file"]).parent.as_posix()
    return Clip(
        file=row["file"],
        split=_checked(row, "split", str, where, split, lambda x: x in _SPLITS) or split,
        source=row.get("source") or (_ROOT if folder == "." else folder),
        machine_made=machine_made == "yes",
        seconds=seconds or 0.0,
        audio_rate=rate or 48_000,
        lead_frames=_lead_frames(source_lead, clip_lead, confidence or 0.0, correction),
        source_lead_frames=source_lead,
        left_out=None if correction is None or correction.keep else correction.reason,
        origin=row.get("origin") or "",
    )


def _checked(
    row: dict[str, str],
    name: str,
    kind: Callable[[str], T],
    where: Path,
    default: T | None,
    is_good: Callable[[T], bool],
) -> T | None:
    """A cell, or the default where it is empty or has no column. Raises ConfigError for one that is not
    good."""
    text = row.get(name)
    if not text:
        return default
    try:
        value = kind(text)
        if is_good(value):
            return value
    except ValueError:
        pass
    raise ConfigError(f"{where}: {row['file']}: {name} {text!r} is not what it must be ({COLUMNS[name]})")


def _lead_frames(
    source_lead: float | None, clip_lead: float | None, confidence: float, correction: Correction | None
) -> float:
    """The best that is known of a clip's audio lead: an audit, its source's, its own estimate, or 0."""
    if correction is not None:
        return correction.advance_ms / FRAME_MS
    if source_lead is not None:
        return source_lead
    if clip_lead is not None and confidence >= MIN_CLIP_CONFIDENCE:
        return clip_lead
    return 0.0


def _rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as table:  # spreadsheets begin with a mark
            yield from csv.DictReader(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read") from error
