"""Ours beside the published: what the paper prints, what runs here gave by the published rule, the
difference."""

from training.reproduction.published import GAPS, NAMES, PUBLISHED, TREND, Published, find_published
from training.reproduction.runs import Row, Run

HEADS = tuple(f"K={name}" for name in NAMES)


def published_markdown(rows: list[Row], runs: list[Run]) -> str:
    """The published figures apart, then beside those of the runs that reproduce them."""
    entries = [
        [row.label, row.source, f"{row.parameters / 1e6:.1f} M", *(_percent(row, name) for name in NAMES)]
        for row in PUBLISHED
    ]
    parts = [
        "## Published figures",
        "On the test list of LRS2 (1,243 clips), by their authors; no run of ours, and not comparable with "
        "figures on other clips. Of Table 2 and of the other bars of Fig. 3 no numbers are at hand.",
        table(("label", "source", "parameters", *HEADS), entries),
        "## The paper and ours",
        *_beside(rows),
        *_gaps(rows),
        *_trends(runs),
    ]
    return "\n\n".join(parts) + "\n"


def table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [list(head), ["---"] * len(head), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def with_spread(mean: dict[str, float], spread: dict[str, float], name: str) -> str:
    """A figure with its standard deviation over seeds, if there are several."""
    if name not in mean:
        return "-"
    return f"{mean[name]:.2f}" + (f" ± {spread[name]:.2f}" if name in spread else "")


def _beside(rows: list[Row]) -> list[str]:
    compared = [
        (row, found)
        for row in rows
        if (found := find_published(row.experiment, row.label)) is not None and row.published_mean
    ]
    if not compared:
        return ["No run here is of a published row, or none was measured by the published rule."]
    lines = []
    for row, found in compared:
        mean, spread = row.published_mean, row.published_spread
        gaps = {
            name: mean[name] - found.percent[name] for name in NAMES if name in mean and name in found.percent
        }
        name, seeds = [row.experiment, row.label], str(len(row.seeds))
        lines += [
            [*name, "paper", *(_percent(found, k) for k in NAMES), ""],
            [*name, "ours", *(with_spread(mean, spread, k) for k in NAMES), seeds],
            [*name, "difference", *(f"{gaps[k]:+.2f}" if k in gaps else "-" for k in NAMES), seeds],
        ]
    return [
        "By the published code's rule (see docs/reproduce.md), mean over clips; of several seeds the mean ± "
        "the standard deviation.",
        table(("experiment", "label", "", *HEADS, "seeds"), lines),
    ]


def _gaps(rows: list[Row]) -> list[str]:
    """What the paper says of two bars of Fig. 3, where both were run."""
    bars = {row.label: row.published_mean.get("5") for row in rows if row.experiment == "Fig. 3"}
    lines = []
    for gap in GAPS:
        higher, lower = bars.get(gap.higher), bars.get(gap.lower)
        if higher is not None and lower is not None:
            bars_of = f"Fig. 3, {gap.higher} less {gap.lower} at K=5"
            lines.append(f"{bars_of}: paper {gap.points:+.2f}, ours {higher - lower:+.2f}.")
    return lines


def _trends(runs: list[Run]) -> list[str]:
    """Where the watched losses of Fig. 4 end, each over its maximum."""
    lines = []
    for run in runs:
        ends = {
            name: curve[-1][1] / max(loss for _, loss in curve)
            for name, curve in run.observed.items()
            if len(curve) > 1 and max(loss for _, loss in curve) > 0
        }
        if run.experiment == "Fig. 4" and ends:
            found = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ends.items())
            lines.append(
                f"Fig. 4, seed {run.seed}, loss at the end over its maximum: {found}. Paper: {TREND}."
            )
    return lines


def _percent(row: Published, name: str) -> str:
    return str(row.percent[name]) if name in row.percent else "-"
