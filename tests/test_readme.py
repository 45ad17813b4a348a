"""The README's commands exist and take the options that it gives them."""

import re
import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import typer.main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line[2:] for block in BLOCKS for line in block.splitlines() if line.startswith("$ ")]


def app_of(words: list[str]) -> tuple[typer.Typer, list[str]] | None:
    """The Typer app that a command line runs, and what it is given."""
    if words[0] == "avsync":
        from avsync_cli.cli import app

        return app, words[1:]
    if words[0] == "torchrun":
        return app_of(["python", *words[words.index("-m") :]])
    if words[:2] == ["python", "-m"]:
        from importlib import import_module

        return import_module(f"{words[2]}.__main__").app, words[3:]
    return None


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_and_options_exist(line):
    found = app_of(shlex.split(line))
    if found is None:
        assert line.startswith(("pip install", "pytest", "python tests/", "dask ")), (
            f"{line!r}: not known to this test"
        )
        return
    app, given = found
    group = typer.main.get_command(app)
    command = group.commands[given[0]]
    known = {option for parameter in command.params for option in parameter.opts}
    used = {word for word in given[1:] if word.startswith("-")}
    assert used <= known


def test_several_processes_are_given_micro_batches_to_share():
    """As `torchrun` would start them: the recipe, with the option, has a part for every process."""
    from training.recipe import read_recipe

    [words] = [shlex.split(line) for line in COMMANDS if line.startswith("torchrun")]
    options = dict(pairwise(words))
    processes, parts = int(options["--nproc-per-node"]), int(options["--micro-batches"])
    data = read_recipe(ROOT / options["distill"]).data
    assert data.micro_batches % processes  # it cannot be done without the option
    assert replace(data, micro_batches=parts).micro_batches % processes == 0


def test_both_commands_of_the_start_are_there():
    assert "pip install ." in COMMANDS
    assert "avsync check VIDEO" in COMMANDS


@pytest.mark.parametrize("path", re.findall(r"`((?:avsync_cli|training|export|tests)/[\w./-]+)`", README))
def test_files_that_are_named_exist(path):
    assert (ROOT / path).exists()


def test_every_exit_code_is_told():
    from avsync_cli import errors

    codes = [value for name, value in vars(errors).items() if name.startswith("EXIT_")]
    assert all(re.search(rf"\| {code} \|", README) for code in codes)


def test_every_json_field_is_told():
    from avsync_cli.report import Report

    fields = Report("f", "error", "m", (-1, 1)).to_json()
    assert all(f"`{name}`" in README for name in fields)


def test_every_field_and_reason_of_a_scan_is_told():
    from typing import get_args

    from avsync_cli.batch.records import FailureReason

    assert all(f"| `{name}` |" in README for name in ("path", "size", "mtime"))
    assert all(f"`{reason}`" in README for reason in get_args(FailureReason))
