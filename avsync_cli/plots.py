"""Figures of a check, drawn with matplotlib: curve, heat map, timeline, mouths beside the sound."""

from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avsync_cli.errors import ConfigError, WriteError
from avsync_cli.outputs import written_whole
from avsync_cli.report import Report
from avsync_cli.sights import HeatMap, Sights, Strip
from avsync_cli.spec import FRAME_MS, SAMPLE_RATE_HZ, VIDEO_FPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"  # is put in place by the page's own colour of text
PLOT_SUFFIXES = (".pdf", ".png", ".svg")
_LINE, _LIMITS, _FOUND = "#1f77d0", "#2e8b57", "#d1495b"
_INCHES = (5.2, 2.6)
_STYLE: Any = {  # matplotlib knows its names one by one
    **{f"{name}.color": INK for name in ("text", "xtick", "ytick")},
    **{"axes.edgecolor": INK, "axes.labelcolor": INK, "svg.fonttype": "none", "font.size": 9.0},
    **{"axes.spines.top": False, "axes.spines.right": False, "savefig.transparent": True},
}


def require_matplotlib() -> None:
    """Raises ConfigError where the extra is missing."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        need = "pip install 'avsync-cli[report]'"
        raise ConfigError(f"reports and plots need the extra `report`: {need}") from error


def draw_curve(report: Report) -> str | None:
    """The score of each offset as SVG, the limits shaded; None where there is none."""
    return _as_svg(lambda figure: _plot_curve(figure.subplots(), report)) if report.curve else None


def draw_heat(report: Report, sights: Sights) -> str | None:
    """How well each offset fits over time as SVG, with the course that was found."""
    heat = sights.heat
    return None if heat is None else _as_svg(lambda figure: _plot_heat(figure.subplots(), report, heat))


def draw_timeline(report: Report) -> str | None:
    return _as_svg(lambda figure: _plot_timeline(figure.subplots(), report)) if report.timeline else None


def draw_strip(report: Report, sights: Sights) -> str | None:
    """Mouths over the sound as it was found to belong to them, and as it is in the file."""
    strip = sights.strip
    return None if strip is None else _as_svg(lambda figure: _plot_strip(figure, report, strip), height=2.4)


def write_plot(report: Report, sights: Sights, path: Path) -> None:
    """All figures in one file, PNG, SVG or PDF by its suffix. Raises ConfigError or WriteError."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**_STYLE, "savefig.transparent": False} | _inks("black")):
        figure = Figure((_INCHES[0] * 2, _INCHES[1] * 2), layout="constrained")
        axes = figure.subplots(2, 2)
        if report.curve:
            _plot_curve(axes[0, 0], report)
        if sights.heat is not None:
            _plot_heat(axes[0, 1], report, sights.heat)
        if report.timeline:
            _plot_timeline(axes[1, 0], report)
        if sights.heat is None or not report.curve:
            axes[0, 0].set_title(report.message, wrap=True)
        _list_words(axes[1, 1], report)
        try:
            with written_whole(path) as part:
                figure.savefig(part, format=path.suffix.lstrip(".").lower(), dpi=150)
        except OSError as error:
            raise WriteError(f"{path}: {error.strerror or error}") from error


def refuse_plot(path: Path) -> None:
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise ConfigError(f"{path}: a plot is written as {', '.join(PLOT_SUFFIXES)}")


def _inks(colour: str) -> dict[str, str]:
    names = ("text.color", "xtick.color", "ytick.color", "axes.edgecolor", "axes.labelcolor")
    return dict.fromkeys(names, colour)


def _as_svg(draw: Any, *, height: float = _INCHES[1]) -> str:  # noqa: ANN401 - draws into a Figure
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure((_INCHES[0], height), layout="constrained")
        draw(figure)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def _plot_curve(axes: "Axes", report: Report) -> None:
    scores = np.array([np.nan if score is None else score for score in report.curve or []], float)
    leads_ms = (np.arange(len(scores)) - len(scores) // 2) * FRAME_MS
    axes.axvspan(*report.limits_ms, color=_LIMITS, alpha=0.18, lw=0, label="in sync")
    axes.plot(leads_ms, scores, color=_LINE, lw=1.5)
    if report.audio_lead_ms is not None:
        found = f"{report.audio_lead_ms:+.0f} ms"
        axes.axvline(report.audio_lead_ms, color=_FOUND, lw=1.2, ls="--", label=found)
    axes.set(xlabel="audio lead in ms (right: audio early)", ylabel="score")
    axes.legend(frameon=False, loc="upper right", fontsize=8)


def _plot_heat(axes: "Axes", report: Report, heat: HeatMap) -> None:
    end_s = float(heat.starts_s[-1] + heat.stretch_s)
    edges_s = np.append(heat.starts_s, end_s)
    edges_ms = np.append(heat.leads_ms - FRAME_MS / 2, heat.leads_ms[-1] + FRAME_MS / 2)
    axes.pcolormesh(edges_s, edges_ms, heat.fits.T, cmap="viridis", rasterized=True)
    times_s, leads_ms = course_of(report, float(heat.starts_s[0]), end_s)
    if times_s:
        axes.plot(times_s, leads_ms, color=_FOUND, lw=1.4, label="found")
        axes.legend(frameon=True, framealpha=0.7, labelcolor="black", loc="upper right", fontsize=8)
    axes.set(xlabel="time in s", ylabel="audio lead in ms")


def course_of(report: Report, begin_s: float, end_s: float) -> tuple[list[float], list[float]]:
    """The found audio lead in ms over time, as the corners of a line; nothing where there is none."""
    if report.audio_lead_ms is None:
        return [], []
    if report.course == "drift" and report.drift_ms_per_min is not None:
        ends_s = [begin_s, end_s]
        start_ms = report.drift_start_ms or 0.0
        return ends_s, [start_ms + report.drift_ms_per_min * time_s / 60 for time_s in ends_s]
    if report.steps:
        times_s = [begin_s, *(step.at_s for step in report.steps for _ in range(2)), end_s]
        return times_s, [level for step in report.steps for level in (step.from_ms, step.from_ms)] + [
            report.steps[-1].to_ms
        ] * 2
    return [begin_s, end_s], [report.audio_lead_ms] * 2


def _plot_timeline(axes: "Axes", report: Report) -> None:
    axes.axhspan(*report.limits_ms, color=_LIMITS, alpha=0.18, lw=0)
    for point in report.timeline:
        middle_s = (point.start_s + point.end_s) / 2
        if point.audio_lead_ms is not None:
            axes.errorbar(
                middle_s,
                point.audio_lead_ms,
                xerr=(point.end_s - point.start_s) / 2,
                yerr=point.uncertainty_ms or 0.0,
                color=_LINE,
                fmt="o",
                ms=3,
                lw=1,
            )
    for passage in report.passages:
        axes.axvspan(passage.start_s, passage.end_s, ymax=0.04, color=INK, alpha=0.5, lw=0)
    axes.set(xlabel="time in s; the dark line below: looked at", ylabel="audio lead in ms")
    axes.set_xlim(0, report.duration_s or max(point.end_s for point in report.timeline))


def _plot_strip(figure: "Figure", report: Report, strip: Strip) -> None:
    top, found, as_is = figure.subplots(3, 1, sharex=True, height_ratios=(1.1, 1, 1))
    begin_s = strip.first_tick / VIDEO_FPS
    end_s = begin_s + len(strip.mouths) * strip.step / VIDEO_FPS
    top.imshow(np.concatenate(strip.mouths, axis=1), extent=(begin_s, end_s, 0, 1), aspect="auto")
    top.set_axis_off()
    times_s = (strip.sound.first_sample + np.arange(len(strip.sound.samples))) / SAMPLE_RATE_HZ
    for axes, lead_ms, label in (
        (found, report.audio_lead_ms or 0.0, "as found" if report.audio_lead_ms is not None else "as it is"),
        (as_is, 0.0, "as it is"),
    ):
        moved_s = times_s + lead_ms / 1000
        inside = (moved_s >= begin_s) & (moved_s < end_s)
        _plot_envelope(axes, moved_s[inside], strip.sound.samples[inside])
        axes.set_ylabel(label, fontsize=8)
        axes.set_yticks([])
    as_is.set_xlim(begin_s, end_s)
    as_is.set_xlabel("time in s")


def _plot_envelope(axes: "Axes", times_s: Any, samples: Any) -> None:  # noqa: ANN401 - arrays [S]
    """The loudest of each 2.5 ms: a line through all samples would be large."""
    each = SAMPLE_RATE_HZ // 400
    count = len(samples) // each
    if count:
        peaks = np.abs(samples[: count * each]).reshape(count, each).max(axis=1)
        axes.fill_between(times_s[: count * each : each], -peaks, peaks, color=_LINE, lw=0)


def _list_words(axes: "Axes", report: Report) -> None:
    axes.set_axis_off()
    axes.text(0, 1, f"{report.file}\n{report.message}", va="top", wrap=True)
