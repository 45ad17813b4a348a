"""The corpus as a table: which clips there are, and how far each one's sound must be moved."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from avsync_cli.errors import ConfigError
from avsync_cli.spec import FRAME_MS

MANIFEST = "manifest.csv"
CORRECTIONS = Path(__file__).parent / "corpus_corrections.csv"
CORRECTION_COLUMNS = ("file", "advance_ms", "keep", "confidence", "reason")
MIN_CLIP_CONFIDENCE = 0.2  # below this the prototype's estimate of a single clip is not used


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

    @property
    def domain(self) -> str:
        return self.file.split("/", 1)[0]


@dataclass(frozen=True)
class Correction:
    """What an audit found for one file: its audio lead, and whether to keep it at all.

    `confidence` is the weight, 0 to 1, that the clip's own estimate has beside that of its group.
    """

    advance_ms: float
    keep: bool
    reason: str
    confidence: float = 0.0


def read_corpus(corpus: Path, *, corrections: Path | None = CORRECTIONS) -> list[Clip]:
    """The clips of a corpus folder. Raises ConfigError where its tables cannot be used.

    The repository's own corrections are passed over where they know no clip of this corpus.
    """
    audited = {} if corrections is None else known_corrections(corrections)
    clips = [_clip(row, audited.get(row["file"])) for row in _rows(corpus / MANIFEST)]
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


def _clip(row: dict[str, str], correction: Correction | None) -> Clip:
    source_lead = float(row["source_lead_frames"]) if row["source_lead_frames"] else None
    return Clip(
        file=row["file"],
        split=row["split"],
        source=row["source"],
        machine_made=row["machine_made"] == "yes",
        seconds=float(row["seconds"]),
        audio_rate=int(row["audio_rate"]),
        lead_frames=_lead_frames(row, source_lead, correction),
        source_lead_frames=source_lead,
        left_out=None if correction is None or correction.keep else correction.reason,
    )


def _lead_frames(row: dict[str, str], source_lead: float | None, correction: Correction | None) -> float:
    """The best that is known of a clip's audio lead: an audit, its source's, its own estimate, or 0."""
    if correction is not None:
        return correction.advance_ms / FRAME_MS
    if source_lead is not None:
        return source_lead
    if row["clip_lead_frames"] and float(row["clip_confidence"] or 0) >= MIN_CLIP_CONFIDENCE:
        return float(row["clip_lead_frames"])
    return 0.0


def _rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as table:
            yield from csv.DictReader(table)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read") from error
