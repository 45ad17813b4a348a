"""What `parity` found, as tables for people."""

from rich.console import Group
from rich.table import Table

from export.parity import Form, Parity


def parity_table(parity: Parity) -> Group:
    """A row for each form, and one for each bar."""
    forms = Table(title=f"{parity.student}: {parity.clips} validation clips")
    columns = ("form", "largest drift", "rms drift", "agrees", "K=5", "K=15", "clip", "MB", "peak MB")
    for name in (*columns, "ms a window, 1 thread", "2 threads"):
        forms.add_column(name, justify="left" if name == "form" else "right")
    for form in parity.forms:
        forms.add_row(*_cells(form))
    bars = Table(title="bars")
    for name in ("", "found", "limit", "holds"):
        bars.add_column(name)
    for bar in parity.bars:
        bars.add_row(bar.what, f"{bar.value:.4g}", f"{bar.limit:g}", "yes" if bar.passed else "[bold]no[/]")
    return Group(forms, bars)


def _cells(form: Form) -> list[str]:
    share = None if form.agreement_percent is None else f"{form.agreement_percent:.1f} %"
    return [
        form.name,
        "" if form.drift is None else f"{form.drift:.2g}",
        "" if form.rms_drift is None else f"{form.rms_drift:.2g}",
        share or "",
        *(f"{form.percent[key]:.1f}" if key in form.percent else "" for key in ("5", "15", "clip")),
        f"{form.file_bytes / 1e6:.2f}",
        f"{form.peak_mb:.0f}",
        *(f"{form.scan_ms[threads]:.2f}" for threads in ("1", "2")),
    ]
