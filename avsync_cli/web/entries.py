"""A file of the page: where it lies, how far it is, and what is said of it."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Literal

from avsync_cli.batch.overview import report_of
from avsync_cli.batch.records import FileError, Record
from avsync_cli.batch.workers import Answer
from avsync_cli.fix import SYNCED, name_targets
from avsync_cli.pages import VERDICTS, describe_for_clients
from avsync_cli.report import ModelId, Report, Status, describe_confidence, verdict_words
from avsync_cli.web.work import REPORT, Task

State = Literal["expected", "uploading", "waiting", "checking", "done", "refused"]
MendState = Literal["none", "waiting", "working", "done", "failed"]


@dataclass
class Entry:
    """One file, alone in its folder but for what is made of it.

    `tab` is the one that sends it, "" for a video of this machine, whose real path is `real`. `words` say why
    it was refused, or what came of mending it.
    """

    key: str
    name: str
    folder: Path
    path: Path
    size: int  # bytes, as declared
    tab: str = ""
    real: Path | None = None
    state: State = "expected"
    received: int = 0  # bytes
    words: str = ""
    verdict: dict[str, str] | None = None
    mending: MendState = "none"
    copy: Path | None = None
    is_removed: bool = False
    erased: Event = field(default_factory=Event)

    @property
    def is_whole(self) -> bool:
        return self.state not in ("expected", "uploading")

    @property
    def report(self) -> Path | None:
        """Its page, if there is one."""
        page = self.folder / REPORT
        answered = self.verdict is not None and self.verdict["status"] != "error"
        return page if answered and page.is_file() else None

    @property
    def copy_name(self) -> str | None:
        """What the copy is called where it is taken to."""
        return None if self.copy is None else f"{Path(self.name).stem}{SYNCED}{self.copy.suffix}"

    @property
    def may_be_mended(self) -> bool:
        return self.verdict is not None and bool(self.verdict["lead"]) and self.mending in ("none", "failed")

    def is_where_it_was(self) -> bool:
        """Whether a video of this machine still lies where it did when it was listed."""
        return self.real is None or Path(os.path.realpath(self.path)) == self.real

    def miss(self, *, mend: bool) -> None:
        """It is not: what was said of it before still holds."""
        self.words = "is not where it was"
        if mend:
            self.mending = "failed"
        else:
            self.state = "refused"

    def task(self, *, mend: bool) -> Task:
        return Task(self.name, str(self.path), size=self.size, mend=mend)

    def take(self, answer: Answer, model: ModelId, *, mend: bool) -> None:
        """Keep what the worker said."""
        if not mend:
            self.state, self.verdict = "done", _judge(answer, self.name, model)
            return
        self.copy = next((copy for copy in name_targets(self.path) if copy.is_file()), None)
        words = answer.message if isinstance(answer, FileError) else str(answer["message"])
        self.words = _without_name(words, self.name)
        self.mending = "failed" if self.copy is None else "done"

    def to_json(self, share: float | None) -> dict[str, Any]:
        """`share` of the work on it that is done, None where that is not known."""
        if self.state == "uploading":
            share = self.received / self.size if self.size else None
        return {
            "key": self.key,
            "name": self.name,
            "size": self.size,
            "is_upload": self.real is None,
            "state": self.state,
            "share": share,
            "words": self.words,
            "verdict": self.verdict,
            "has_report": self.report is not None,
            "mending": self.mending,
            "may_be_mended": self.may_be_mended,
            "copy_name": self.copy_name,
        }


def _judge(answer: Answer, name: str, model: ModelId) -> dict[str, str]:
    """The verdict in words; those of `avsync check`, and those of its page for people who are new to this."""
    if not isinstance(answer, FileError):
        try:
            return _describe(answer, report_of(answer | {"model": answer["model"] or asdict(model)}), name)
        except (AttributeError, KeyError, TypeError, ValueError):
            answer = FileError("crashed", "its worker did not say anything sensible")
    return _verdict("error", answer.message)


def _describe(record: Record, report: Report, name: str) -> dict[str, str]:
    words = _without_name(verdict_words(report), name)
    if report.audio_lead_ms is None:
        return _verdict(report.status, words)
    sure = f"{describe_confidence(report.confidence)} sure"
    sure = sure if report.uncertainty_ms is None else f"{sure}, ±{report.uncertainty_ms:.0f} ms"
    lead = f"{report.audio_lead_ms:+.0f} ms" if record["status"] == "out_of_sync" else ""
    return _verdict(report.status, words, sentence=describe_for_clients(report), sure=sure, lead=lead)


def _verdict(
    status: Status, words: str, *, sentence: str = "", sure: str = "", lead: str = ""
) -> dict[str, str]:
    """`lead` is told only of what can be mended."""
    return {
        "status": status,
        "title": VERDICTS[status],
        "words": words,
        "sentence": sentence,
        "sure": sure,
        "lead": lead,
    }


def _without_name(words: str, name: str) -> str:
    return words.removeprefix(f"{name}: ")
