"""Put a file right: check it, copy it with the sound moved, check the copy, then give that its name."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Literal

from avsync_cli.changes import Mark, mark_file, refuse_change
from avsync_cli.copies import compare_copy
from avsync_cli.errors import EXIT_IN_SYNC, EXIT_OUT_OF_SYNC, EXIT_UNDETERMINED, ConfigError, MediaError
from avsync_cli.outputs import refuse_target, written_whole
from avsync_cli.remux import MATROSKA, MUXERS, Move, Recode, Stretch, UnfitContainer, copy_moved
from avsync_cli.report import Report, verdict_words
from avsync_cli.resample import Drift, Stretcher
from avsync_cli.spec import REPORT_SCHEMA_VERSION

Check = Callable[[Path], Report]
FixStatus = Literal["fixed", "nothing_to_fix", "refused"]

SYNCED = ".synced"
MAX_BY_MS = 3_600_000.0
_SHIFTLESS = {".avi": "AVI", ".mxf": "MXF"}


@dataclass(frozen=True)
class FixOptions:
    """What is wanted; `out` None: beside the file, as NAME.synced.EXT.

    `by_ms` delays the sound by so much (earlier if negative) without a check. `segments` moves each stretch
    between steps by its own offset, `resample` encodes a drifting sound again. `force` moves what is in
    sync already, what disagrees with itself, and keeps what the check of the copy does not confirm, or what
    lacks streams that begin only within the file.
    """

    out: Path | None = None
    by_ms: float | None = None
    audio_stream: int | None = None
    segments: bool = False
    resample: bool = False
    force: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class MovedStretch:
    """Sound of [start_s, end_s) of the file, None: its ends, and by how much it was delayed."""

    start_s: float | None
    end_s: float | None
    delay_ms: float


@dataclass(frozen=True)
class Fix:
    """What became of one file; `out` is None where nothing was written.

    `before` and `after` are the reports of the file and of its copy, None where they were not checked.
    """

    file: str
    status: FixStatus
    message: str
    out: str | None = None
    container_note: str | None = None  # why it is another container than the file's
    stretches: tuple[MovedStretch, ...] = ()
    left_out_packets: int = 0  # of sound that belongs to no picture any more
    recoded: bool = False
    before: Report | None = None
    after: Report | None = None

    @property
    def exit_code(self) -> int:
        if self.status != "refused":
            return EXIT_IN_SYNC
        out_of_sync = self.before is not None and self.before.status == "out_of_sync"
        return EXIT_OUT_OF_SYNC if out_of_sync else EXIT_UNDETERMINED

    def to_json(self) -> dict[str, Any]:
        return {
            "schema_version": REPORT_SCHEMA_VERSION,
            "file": self.file,
            "status": self.status,
            "out": self.out,
            "container_note": self.container_note,
            "stretches": [
                {"start_s": each.start_s, "end_s": each.end_s, "delay_ms": each.delay_ms}
                for each in self.stretches
            ],
            "left_out_packets": self.left_out_packets,
            "recoded": self.recoded,
            "before": None if self.before is None else self.before.to_json(),
            "after": None if self.after is None else self.after.to_json(),
            "message": self.message,
        }


class _Refused(Exception):  # noqa: N818 - becomes a Fix
    """Why a file is not mended."""


@dataclass(frozen=True)
class _Plan:
    move: Move
    drift: Drift | None = None


def fix_file(path: str | Path, check: Check, options: FixOptions = FixOptions()) -> Fix:
    """Write a copy of a video whose sound is where it belongs; the file itself is never touched.

    `check` is asked about the file, unless `options.by_ms` says by how much, and about the copy before it
    gets its name: it is `check_file` with its options bound. Every stream is copied packet by packet, and
    the copy is read back and compared. What a container cannot hold is written as Matroska. Raises
    MediaError, WriteError, ConfigError or what `check` raises; a file that is not to be mended is a Fix.
    """
    path = Path(path)
    out, note = name_target(path, options.out)
    refuse_target(out, path, overwrite=options.overwrite)
    if options.by_ms is not None and not 0 < abs(options.by_ms) <= MAX_BY_MS:
        raise ConfigError(f"by {options.by_ms:g} ms: must be a shift of up to an hour, and not 0")
    mark = mark_file(path)
    before = None if options.by_ms is not None else check(path)
    try:
        plan = _plan(before, options)
    except _Refused as refusal:
        return Fix(str(path), "refused", str(refusal), before=before)
    if plan is None:
        return Fix(str(path), "nothing_to_fix", "in sync already: nothing was written", before=before)
    write = partial(_write, path, plan, check, options, before, mark)
    try:
        return write(out, note)
    except UnfitContainer as unfit:
        if options.out is not None or out.suffix.lower() == MATROSKA:
            raise ConfigError(f"{out}: {unfit}; name a .mkv file with -o") from unfit
        note = f"written as Matroska: {unfit}"
    out = out.with_suffix(MATROSKA)
    refuse_target(out, path, overwrite=options.overwrite)
    try:
        return write(out, note)
    except UnfitContainer as unfit:
        raise MediaError(f"{path}: cannot be copied: {unfit}") from unfit


def name_targets(path: Path) -> tuple[Path, Path]:
    """The names that a copy may get which is given none: in the file's container, or as Matroska."""
    target = name_target(path, None)[0]
    return target, target.with_suffix(MATROSKA)


def name_target(path: Path, out: Path | None) -> tuple[Path, str | None]:
    """The file to write, and why it is another container than the file's, if so. Raises ConfigError."""
    if out is not None:
        if out.suffix.lower() in MUXERS:
            return out, None
        raise ConfigError(f"{out}: {_describe_unfit(out)}; name a .mkv file")
    suffix = path.suffix if path.suffix.lower() in MUXERS else MATROSKA
    note = None if suffix == path.suffix else f"written as Matroska: {_describe_unfit(path)}"
    return path.with_name(f"{path.stem}{SYNCED}{suffix}"), note


def _describe_unfit(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in _SHIFTLESS:
        return f"{_SHIFTLESS[suffix]} does not keep when a sound begins"
    return f"'{suffix}' is no container that is known to keep when a sound begins"


def _plan(report: Report | None, options: FixOptions) -> _Plan | None:
    """By how much to move what; None where there is nothing to do. Raises _Refused."""
    sounds = None if options.audio_stream is None else frozenset((options.audio_stream,))
    if report is None:
        delay_s = Fraction(str(options.by_ms)) / 1000
        return _Plan(Move((Stretch(delay_s),), sounds))
    if report.audio_lead_ms is None:
        raise _Refused(f"by how much is not known: {verdict_words(report)}")
    in_parts = (report.course == "steps" and options.segments) or (
        report.course == "drift" and options.resample
    )
    if in_parts and not report.agreed and not options.force:
        raise _Refused(f"passages disagree: {report.message}; --force moves what was found")
    if report.course == "steps":
        if not options.segments:
            raise _Refused(f"one shift does not mend it: {report.message}; --segments moves each stretch")
        return _Plan(Move(_cut_stretches(report), sounds))
    if report.course == "drift":
        if not options.resample:
            raise _Refused(f"no shift mends it: {report.message}; --resample encodes the sound again")
        if Path(report.file).suffix.lower() == ".avi":  # measured: lands 18 ms off
            raise _Refused(
                f"no shift mends it: {report.message}; sound from AVI cannot be played faster exactly"
            )
        drift = _find_drift(report)
        ends = (drift.lead_at(Fraction(0)), drift.lead_at(Fraction(report.duration_s or 0)))
        return _Plan(Move((Stretch(min(ends)),), sounds), drift)
    if report.status == "in_sync" and not options.force:
        return None
    if not report.agreed and not options.force:
        raise _Refused(
            f"passages disagree: {report.message}; --force moves all by {report.audio_lead_ms:+.0f} ms"
        )
    return _Plan(Move((Stretch(_whole_ms(report.audio_lead_ms)),), sounds))


def _cut_stretches(report: Report) -> tuple[Stretch, ...]:
    """The sound of each stretch between steps; what belongs to pictures beyond its step is left out."""
    leads_s = [_whole_ms(report.steps[0].from_ms), *(_whole_ms(step.to_ms) for step in report.steps)]
    stretches: list[Stretch] = []
    start_s = -float("inf")
    for step, lead_s, next_s in zip(report.steps, leads_s, leads_s[1:], strict=False):
        end_s = step.at_s - float(lead_s)
        stretches.append(Stretch(lead_s, start_s, end_s))
        start_s = max(end_s, step.at_s - float(next_s))
    return (*stretches, Stretch(leads_s[-1], start_s))


def _find_drift(report: Report) -> Drift:
    if report.drift_start_ms is None or report.drift_ms_per_min is None:
        raise _Refused("the report does not tell where the drift begins")
    return Drift(_whole_ms(report.drift_start_ms), Fraction(report.drift_ms_per_min) / 60_000)


def _write(
    path: Path,
    plan: _Plan,
    check: Check,
    options: FixOptions,
    before: Report | None,
    mark: Mark | None,
    out: Path,
    note: str | None,
) -> Fix:
    """Write and check the copy. Raises UnfitContainer where the container does not hold it."""
    drift = plan.drift
    recode: Recode | None = None if drift is None else partial(Stretcher, drift=drift)
    after: Report | None = None
    try:
        with written_whole(out, overwrite=options.overwrite) as part:
            asked = copy_moved(path, part, out.suffix.lower(), plan.move, recode=recode)
            if asked.unseen and not options.force:
                lacking = ", ".join(asked.unseen)
                raise _Refused(
                    f"a copy would lack {lacking}, which begins within the file; --force writes it"
                )
            if problem := compare_copy(asked, part):
                raise UnfitContainer(problem)
            if before is not None:
                after = replace(check(part), file=str(out))
            if after is not None and after.status != "in_sync" and not options.force:
                raise _Refused(f"the copy was not kept, since its check does not confirm it: {after.message}")
            refuse_change(path, mark)
    except _Refused as refusal:
        return Fix(str(path), "refused", str(refusal), before=before, after=after)
    stretches = tuple(
        MovedStretch(_finite(each.start_s), _finite(each.end_s), float(each.delay_s * 1000))
        for each in plan.move.stretches
    )
    return Fix(
        str(path),
        "fixed",
        _describe_fix(plan, out, asked.unseen),
        str(out),
        note,
        stretches,
        sum(track.left_out for track in asked.tracks),
        drift is not None,
        before,
        after,
    )


def _describe_fix(plan: _Plan, out: Path, unseen: tuple[str, ...]) -> str:
    lacking = f", without {', '.join(unseen)}" if unseen else ""
    if plan.drift is not None:
        return f"sound encoded again without its drift, as {out}{lacking}"
    delays_ms = [float(each.delay_s * 1000) for each in plan.move.stretches]
    return f"sound moved by {', '.join(f'{delay:+.0f}' for delay in delays_ms)} ms, as {out}{lacking}"


def _whole_ms(value_ms: float) -> Fraction:
    """In seconds."""
    return Fraction(round(value_ms), 1000)


def _finite(value: float) -> float | None:
    return value if abs(value) != float("inf") else None
