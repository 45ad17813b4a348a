"""`avsync doctor`: its options, and what is printed."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from avsync_cli.doctor import Health

Student = Annotated[
    Path | None, typer.Option("--model", "--student", help="Folder of another student than the bundled one.")
]


def doctor(
    model: Student = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Say what this device is, and whether all of avsync's models compute right on it.

    Exit codes: 0 all is well, 5 something is wrong.
    """
    from avsync_cli.doctor import examine_device

    health = examine_device(model)
    if as_json:
        typer.echo(json.dumps(health.to_json(), ensure_ascii=False, allow_nan=False))
    else:
        _print_health(health)
    raise typer.Exit(health.exit_code)


def _print_health(health: "Health") -> None:
    from rich.markup import escape

    console = _console()
    versions = ", ".join(f"{name} {version or 'missing'}" for name, version in health.versions.items())
    student, folder = health.student, health.temporary_folder
    precisions = f"{' and '.join(student.precisions)}, takes {student.auto} here"
    lines = {
        "versions": versions,
        "cpu": f"{health.cpu.model} ({health.cpu.arch}): {', '.join(health.cpu.features) or 'none known'}",
        "cores": str(health.cores),
        "memory": "not known" if health.free_memory_mb is None else f"{health.free_memory_mb} MB free",
        "temporary": f"{folder.path}, {folder.free_mb} MB free" if folder.writable else folder.path,
        "student": f"{student.name} {student.sha256[:12]}, {precisions}" if student.sha256 else "unusable",
    }
    for name, text in lines.items():
        console.print(f"[dim]{name:<11}[/]{escape(text)}")
    for state in health.graphs:
        if state.outcome == "right":
            console.print(f"[dim]{'graph':<11}[/]{escape(state.message)}")
    for text in health.warnings:
        console.print(f"[bold yellow]{'warning':<11}[/]{escape(text)}")
    for text in health.problems:
        console.print(f"[bold red]{'problem':<11}[/]{escape(text)}")
    if not health.problems:
        console.print("[bold green]all is well[/]")


def _console() -> "Console":
    from rich.console import Console

    return Console(soft_wrap=True, highlight=False)
