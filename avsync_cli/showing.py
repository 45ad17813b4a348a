"""A check that is also shown: as a page, a plot, a video with what was found, and marks for editors."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from avsync_cli.errors import ConfigError, WriteError
from avsync_cli.given import STANDARD_INPUT
from avsync_cli.options import CheckOptions
from avsync_cli.outputs import refuse_target

if TYPE_CHECKING:
    from avsync_cli.check import Engine, Progress
    from avsync_cli.report import Report


@dataclass(frozen=True)
class Showing:
    """What is to be written of a check, and the first picture's timecode in it.

    A page and a plot replace what has their names; the others only with `overwrite`.
    """

    page: Path | None = None
    plot: Path | None = None
    overlay: Path | None = None
    marks: Path | None = None
    timecode: str | None = None
    overwrite: bool = False

    @property
    def is_wanted(self) -> bool:
        return any(self._targets())

    def refuse(self, videos: list[str], options: CheckOptions) -> None:
        """Raises ConfigError where that cannot be written, or belongs to no one video."""
        if len(videos) > 1:
            raise ConfigError(
                "--report, --plot, --visualize and --markers go with one video, not with several"
            )
        named = [path.resolve() for path in self._targets() if path is not None]
        if len(set(named)) < len(named):
            raise ConfigError("--report, --plot, --visualize and --markers must name different files")
        for path in self._targets():
            if path is not None:
                may_replace = self.overwrite or path in (self.page, self.plot)
                refuse_target(path, Path(videos[0]), overwrite=may_replace)
        if self.page is not None or self.plot is not None:
            from avsync_cli.plots import refuse_plot, require_matplotlib

            require_matplotlib()
            if self.plot is not None:
                refuse_plot(self.plot)
        if self.overlay is not None:
            from avsync_cli.overlay import refuse_overlay

            refuse_overlay(self.overlay)
            if options.audio is not None:
                raise ConfigError("--visualize keeps the video's own sound: it does not go with --audio")
        if self.marks is not None:
            from avsync_cli.marks import refuse_marks

            refuse_marks(self.marks)

    def _targets(self) -> tuple[Path | None, ...]:
        return self.page, self.plot, self.overlay, self.marks


def check_and_show(
    path: Path,
    options: CheckOptions,
    engine: "Engine",
    showing: Showing,
    *,
    name: str,
    progress: "Progress | None" = None,
) -> "Report":
    """As `check_file`, and write what `showing` asks for, about a file that users call `name`.

    Raises WriteError too.
    """
    from avsync_cli.check import check_and_keep
    from avsync_cli.timecode import read_clock

    clock = read_clock(path, showing.timecode)
    report, findings = check_and_keep(path, options, engine, progress=progress)
    report = replace(report, file=name)
    if showing.page is not None or showing.plot is not None:
        from avsync_cli.pages import write_page
        from avsync_cli.plots import write_plot
        from avsync_cli.sights import gather_sights

        sights = gather_sights(report, findings, path, timecode=clock.timecode)
        if showing.page is not None:
            write_page(report, sights, showing.page)
        if showing.plot is not None:
            write_plot(report, sights, showing.plot)
    if showing.marks is not None:
        from avsync_cli.marks import gather_marks, write_marks

        write_marks(
            gather_marks(report, findings),
            report,
            showing.marks,
            media=None if name == STANDARD_INPUT else path,
            clock=clock,
            overwrite=showing.overwrite,
        )
    if showing.overlay is not None:
        from avsync_cli.overlay import Part, write_overlay

        def told(drawn_s: float) -> None:
            if progress is not None and report.duration_s is not None:
                progress(report.looked_at_s + drawn_s, report.looked_at_s + report.duration_s)

        write_overlay(
            report,
            findings,
            path,
            showing.overlay,
            part=Part(options.start_s, options.end_s),
            timecode=clock.timecode,
            overwrite=showing.overwrite,
            threads=engine.threads,
            told=told,
        )
    return report


def check_to_page(
    path: Path,
    *,
    options: CheckOptions,
    engine: "Engine",
    page: Path,
    name: str,
    home: str | None = None,
    progress: "Progress | None" = None,
) -> "Report":
    """As `check_file`, and write its page about a file that users call `name`; `home` is that over all files.

    A page that cannot be written is no reason to have no answer.
    """
    from avsync_cli.check import check_and_keep
    from avsync_cli.pages import write_page
    from avsync_cli.sights import gather_sights
    from avsync_cli.timecode import read_clock

    report, findings = check_and_keep(path, options, engine, progress=progress)
    if progress is not None:
        progress(1.0, 1.0)  # all but the page
    sights = gather_sights(report, findings, path, timecode=read_clock(path).timecode)
    with suppress(WriteError):
        write_page(replace(report, file=name), sights, page, home=home)
    return report
