"""`python -m training compare`: a Markdown table and the paper's plots from the folders of evaluated runs."""

from pathlib import Path

from training.evaluation.protocol import LENGTHS
from training.reproduction.against import published_markdown, table, with_spread
from training.reproduction.plots import Plot, plot_bars, plot_ratios, plot_sizes
from training.reproduction.runs import FIGURES, Row, Run, find_folders, gather_rows, read_run

REPORT = "comparison.md"
_FIGURE_HEADS = (*(f"K={length}" for length in LENGTHS), "whole clip", "val F1")


def compare(
    paths: list[Path],
    output: Path,
    *,
    runs: Path,
    command: str,
    group: str = "all",
    published: bool = False,
) -> str:
    """Compare run folders, or those in `runs` that configurations stand for; returns the Markdown text.

    Text and plots go into the folder `output`; `command` is what the text says it was made by. Raises
    ConfigError.
    """
    found = [read_run(folder, group=group) for folder in find_folders(paths, runs=runs)]
    rows = gather_rows(found)
    plots = [
        plot_sizes(rows_of_sizes(rows)),
        plot_bars(rows_of_bars(rows)),
        plot_ratios(runs_of_ratios(found)),
    ]
    text = markdown(rows, found, plots, command=command, group=group)
    if published:
        text += f"\n{published_markdown(rows, found)}"
    output.mkdir(parents=True, exist_ok=True)
    for plot in plots:
        (output / plot.file).unlink(missing_ok=True)  # a plot of an earlier comparison is none of this one
        if plot.figure is not None:
            plot.figure.savefig(output / plot.file, dpi=150)
    (output / REPORT).write_text(text, encoding="utf-8")
    return text


def rows_of_sizes(rows: list[Row]) -> list[Row]:
    """What Fig. 2 shows: its own rows and MTD of Table 1; all rows where these are no two."""
    own = [row for row in rows if row.experiment == "Fig. 2"]
    mtd = [row for row in rows if (row.experiment, row.label) == ("Table 1", "MTD")]
    return own + mtd if own and len(own + mtd) > 1 else rows


def rows_of_bars(rows: list[Row]) -> list[Row]:
    """What Fig. 3 shows: its own rows after BCE, which the tables have; all rows where none is its own."""
    own = [row for row in rows if row.experiment == "Fig. 3"]
    bce = [row for row in rows if row.label == "BCE" and row.experiment in ("Table 1", "Table 2")]
    return bce[:1] + own if own else rows


def runs_of_ratios(runs: list[Run]) -> list[Run]:
    """What Fig. 4 shows: its own runs; all where none is its own."""
    return [run for run in runs if run.experiment == "Fig. 4"] or runs


def markdown(rows: list[Row], runs: list[Run], plots: list[Plot], *, command: str, group: str) -> str:
    """The table, what to beware of when reading it, and the plots or why they are missing."""
    head = ("label", "experiment", "network", "parameters", "seeds", "steps", *_FIGURE_HEADS)
    parts = [
        "# Comparison",
        f"Made by `{command}`.",
        "Percent of windows whose best of 31 offsets lies within one frame of the truth, mean over the clips "
        f"of the group `{group}`; of several seeds the mean ± the standard deviation. Val F1 is the best "
        "of the validations, by which the weights were chosen.",
        table(head, [_cells(row) for row in rows]),
        *_warnings(runs),
    ]
    for plot in plots:
        shown = f"![{plot.title}]({plot.file})" if plot.figure is not None else f"Left out: {plot.reason}."
        parts.append(f"## {plot.title}\n\n{shown}")
    return "\n\n".join(parts) + "\n"


def _cells(row: Row) -> list[str]:
    figures = [with_spread(row.mean, row.spread, name) for name in FIGURES]
    seeds = ", ".join(map(str, row.seeds))
    size = f"{row.parameters / 1e6:.3f} M"
    return [row.label, row.experiment, row.network, size, seeds, f"{row.steps:,}", *figures]


def _warnings(runs: list[Run]) -> list[str]:
    """What keeps rows from being comparable."""
    differences = {
        "data": "were measured on different data",
        "measured": "were measured on different splits or parts of the clips",
        "clips": "were measured on different numbers of clips",
        "steps": "took different numbers of steps",
    }
    return [
        f"Beware: the runs {words}."
        for name, words in differences.items()
        if len({getattr(run, name) for run in runs}) > 1
    ]
