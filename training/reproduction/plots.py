"""The plots of the paper's Fig. 2, 3 and 4 from rows and runs; a plot without data says why it is none."""

from dataclasses import dataclass

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.evaluation.protocol import LENGTHS
from training.reproduction.runs import OBSERVED, Row, Run, unique_names

_INCH_PER_BAR = 0.55


@dataclass(frozen=True)
class Plot:
    """A figure and the file it belongs into, or the reason why there is none."""

    title: str
    file: str
    figure: Figure | None = None
    reason: str | None = None


def plot_sizes(rows: list[Row]) -> Plot:
    """Fig. 2: accuracy over parameters, one panel for each K."""
    title, file = "Fig. 2: size and accuracy", "fig2.png"
    if len({row.parameters for row in rows}) < 2:
        return Plot(title, file, reason="all rows have networks of one size")
    lengths = [length for length in LENGTHS if any(str(length) in row.mean for row in rows)]
    if not lengths:
        return Plot(title, file, reason="no clip is long enough for any K")
    figure = Figure(figsize=(10, 7), layout="constrained")
    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
    panels = figure.subplots(2, 3, sharey=True).flat
    for panel, length in zip(panels, lengths, strict=False):
        for place, (row, name) in enumerate(zip(rows, unique_names(rows), strict=True)):
            if str(length) in row.mean:
                at = row.parameters / 1e6, row.mean[str(length)]
                panel.plot(*at, "o", color=colours[place % len(colours)], label=name)
        panel.set(title=f"K={length} ({length / 25:.2f} s)", xlabel="parameters (M)", ylabel="accuracy (%)")
        panel.grid(alpha=0.3)
    for panel in panels[len(lengths) :]:
        panel.set_axis_off()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return Plot(title, file, figure)


def plot_bars(rows: list[Row]) -> Plot:
    """Fig. 3: a bar of the accuracy at K=5 for each label, with the spread over its seeds."""
    title, file = "Fig. 3: accuracy at K=5 by label", "fig3.png"
    shown = [(name, row) for name, row in zip(unique_names(rows), rows, strict=True) if "5" in row.mean]
    if len(shown) < 2:
        return Plot(title, file, reason="fewer than two rows have an accuracy at K=5")
    figure = Figure(figsize=(2 + _INCH_PER_BAR * len(shown), 4.5), layout="constrained")
    panel = figure.subplots()
    heights = [row.mean["5"] for _, row in shown]
    spreads = [row.spread.get("5", 0.0) for _, row in shown]
    bars = panel.bar(range(len(shown)), heights, yerr=spreads, capsize=3)
    panel.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
    panel.set_xticks(range(len(shown)), [name for name, _ in shown], rotation=60, ha="right")
    panel.set_ylabel("accuracy at K=5 (%)")
    panel.grid(axis="y", alpha=0.3)
    return Plot(title, file, figure)


def plot_ratios(runs: list[Run]) -> Plot:
    """Fig. 4: the watched losses of each run that has any, each divided by its maximum, over steps."""
    title, file = "Fig. 4: loss ratios on the validation pairs", "fig4.png"
    watched = [run for run in runs if run.observed]
    if not watched:
        return Plot(title, file, reason="no run watched these losses (`observe` in its configuration)")
    shown = [run for run in watched if max(map(len, run.observed.values())) > 1]
    if not shown:
        return Plot(title, file, reason="no run that watched these losses was validated more than once")
    figure = Figure(figsize=(5 * len(shown), 4), layout="constrained")
    for panel, run in zip(figure.subplots(1, len(shown), squeeze=False).flat, shown, strict=True):
        _draw_ratios(panel, run)
    return Plot(title, file, figure)


def _draw_ratios(panel: Axes, run: Run) -> None:
    for name in OBSERVED:
        curve = run.observed.get(name, [])
        highest = max((loss for _, loss in curve), default=0.0)
        if highest > 0:
            panel.plot([step for step, _ in curve], [loss / highest for _, loss in curve], ".-", label=name)
    panel.set(title=f"{run.label}, seed {run.seed}", xlabel="step", ylabel="loss ratio")
    panel.grid(alpha=0.3)
    panel.legend()
