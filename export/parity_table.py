"""What `parity` found, as tables for people."""

from rich.console import Group
from rich.table import Table

from export.parity import Form, Parity


def parity_tables(parity: Parity) -> Group:
    """What the forms say, what they cost, and which bars hold: a row each."""
    says = _table(
        f"{parity.student}: {parity.clips} validation clips",
        ("form", "K=5", "K=15", "clip", "against", "most drift", "rms drift", "agrees"),
    )
    costs = _table("cost", ("form", "MB", "peak MB", "ms a window, 1 thread", "2 threads"))
    for form in parity.forms:
        says.add_row(form.name, *_figures(form))
        times = (f"{form.scan_ms[threads]:.2f}" for threads in ("1", "2"))
        costs.add_row(form.name, f"{form.file_bytes / 1e6:.2f}", f"{form.peak_mb:.0f}", *times)
    bars = _table("bars", ("bar", "found", "limit", "holds"))
    for bar in parity.bars:
        bars.add_row(bar.what, f"{bar.value:.3g}", f"{bar.limit:g}", "yes" if bar.passed else "[bold]no[/]")
    return Group(says, costs, bars)


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left")
    return table


def _figures(form: Form) -> list[str]:
    percent = [f"{form.percent[key]:.1f}" if key in form.percent else "" for key in ("5", "15", "clip")]
    if form.drift is None or form.rms_drift is None or form.agreement_percent is None:
        return percent
    drifts = [f"{drift:.1e}" for drift in (form.drift, form.rms_drift)]
    return [*percent, form.against or "", *drifts, f"{form.agreement_percent:.1f} %"]
