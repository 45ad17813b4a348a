"""`avsync doctor` and `avsync bench`: their options, and what is printed."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsync_cli.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from avsync_cli.bench import Benchmark
    from avsync_cli.doctor import Health

Student = Annotated[
    Path | None, typer.Option("--model", "--student", help="Folder of another model than the bundled one.")
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


def bench(
    model: Student = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    seconds: Annotated[float, typer.Option(help="Length of the clip that is made and timed.")] = 4.0,
    threads: Annotated[
        str, typer.Option(help="Numbers of threads to try, such as 1,2,4; auto: 1, 2, 4 ... all cores.")
    ] = "auto",
) -> None:
    """Time every stage of a check on this device, and say which precision and how many threads to use."""
    from avsync_cli.bench import bench_device

    counts = _parse_threads(threads)
    with _waiting(f"timing {seconds:g} s of video in every precision"):
        benchmark = bench_device(model, seconds=seconds, threads=counts)
    if as_json:
        typer.echo(json.dumps(benchmark.to_json(), ensure_ascii=False, allow_nan=False))
    else:
        _print_benchmark(benchmark)


def _waiting(text: str) -> "AbstractContextManager[object]":
    """Words on a terminal for as long as there is nothing else to see."""
    from rich.console import Console

    return Console(stderr=True).status(text)


def _parse_threads(value: str) -> list[int]:
    """Numbers above 0, none for "auto". Raises ConfigError."""
    words = [] if value == "auto" else value.split(",")
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ConfigError(f"--threads {value}: neither auto nor numbers above 0 with commas between")
    return [int(word) for word in words]


def _print_benchmark(benchmark: "Benchmark") -> None:
    from rich.table import Table

    from avsync_cli.escapes import as_text

    stages = ("decode", "detect", "mesh", "encode", "score", "total")
    table = Table(box=None, caption="ms for a frame of 40 ms and its factor", caption_justify="left")
    for heading in ("precision", "threads", *stages, "factor"):
        table.add_column(heading, justify="left" if heading == "precision" else "right", no_wrap=True)
    for speed in benchmark.speeds:
        times = [f"{getattr(speed, f'{stage}_ms'):.2f}" for stage in stages]
        table.add_row(speed.precision, str(speed.threads), *times, f"{speed.real_time_factor:.2f}")
    console, best = _console(), benchmark.recommended
    console.print(as_text(f"{benchmark.cpu.model}, model {benchmark.student}, {benchmark.clip}"))
    console.print(table)
    console.print(f"use        --precision {best.precision} --threads {best.threads}")
    console.print(f"auto takes {benchmark.auto} here")


def _print_health(health: "Health") -> None:
    from avsync_cli.escapes import as_text

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
        "model": f"{student.name} {student.sha256[:12]}, {precisions}" if student.sha256 else "unusable",
        "network": f"not used; telemetry of ONNX Runtime is {'off' if health.telemetry_off else 'ON'}",
    }
    for name, text in lines.items():
        console.print(as_text((f"{name:<11}", "dim"), text))
    for state in health.graphs:
        if state.outcome == "right":
            console.print(as_text((f"{'graph':<11}", "dim"), state.message))
    for text in health.warnings:
        console.print(as_text((f"{'warning':<11}", "bold yellow"), text))
    for text in health.problems:
        console.print(as_text((f"{'problem':<11}", "bold red"), text))
    if not health.problems:
        console.print("[bold green]all is well[/]")


def _console() -> "Console":
    from rich.console import Console

    return Console(soft_wrap=True, highlight=False)
