"""What README and docs/ promise: commands, options, files, fields, codes and figures exist."""

import ast
import re
import shlex
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import pytest
import typer.main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
}
LONGEST_README = 150  # lines


def commands_of(page: str) -> list[str]:
    """Every command of a page's console blocks, without its prompt."""
    blocks = re.findall(r"```console\n(.*?)```", page, flags=re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


COMMANDS = sorted({line for page in PAGES.values() for line in commands_of(page)})
NAMED = sorted(
    {
        path
        for page in PAGES.values()
        for path in re.findall(r"`((?:avsync_cli|training|export|tests|docs)/[\w./-]+)`", page)
    }
)
LINKS = sorted(
    {(name, link) for name, page in PAGES.items() for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page)}
)


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
        known = ("pip install", "pytest", "python tests/", "dask ", "pre-commit ", "mkdocs ")
        assert line.startswith(known), f"{line!r}: not known to this test"
        scripts = re.findall(r"tests/[\w/.]+\.py", line)
        assert all((ROOT / script).is_file() for script in scripts)
        return
    app, given = found
    group = typer.main.get_command(app)
    command = group.commands[given[0]]
    known = {option for parameter in command.params for option in parameter.opts}
    used = {word for word in given[1:] if word.startswith("-") and word != "-"}
    assert used <= known
    command.make_context(given[0], given[1:])  # raises where it is not a call that can be made


@pytest.mark.slow
def test_the_examples_in_python_run(heads, tmp_path, monkeypatch):
    """All of them, one after the other, with a talking head in place of the files that they name."""
    (tmp_path / "FOLDER").mkdir()
    for name in ("interview.mp4", "FOLDER/interview.mp4"):
        shutil.copy(heads[160], tmp_path / name)
    monkeypatch.chdir(tmp_path)
    capture = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: capture("interview.mp4"))
    blocks = re.findall(r"```python\n(.*?)```", PAGES["docs/python.md"], flags=re.DOTALL)
    assert len(blocks) >= 4
    names: dict[str, Any] = {"__name__": "example"}
    for block in blocks:
        exec(block, names)
    assert names["report"].status in ("in_sync", "out_of_sync", "undetermined")
    assert (names["scanned"].files, names["scanned"].answered) == (1, 1)


def test_several_processes_are_given_micro_batches_to_share():
    """As `torchrun` would start them: the recipe, with the option, has a part for every process."""
    from training.recipe import read_recipe

    lines = [shlex.split(line) for line in COMMANDS if line.startswith("torchrun") and "distill" in line]
    assert len(lines) == 2
    for words in lines:
        options = dict(pairwise(words))
        processes, parts = int(options["--nproc-per-node"]), int(options["--micro-batches"])
        data = read_recipe(ROOT / options["distill"]).data
        assert data.micro_batches % processes  # it cannot be done without the option
        assert replace(data, micro_batches=parts).micro_batches % processes == 0


def test_both_commands_of_the_start_are_there():
    assert {"pip install .", "avsync check VIDEO"} <= set(commands_of(README))


def test_readme_is_a_page():
    assert len(README.splitlines()) <= LONGEST_README


@pytest.mark.parametrize("path", NAMED)
def test_files_that_are_named_exist(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_links_lead_to_files(page, link):
    assert (ROOT / page).parent.joinpath(link).is_file()


def test_every_page_can_be_reached():
    """From the site's list of pages, which mkdocs shows."""
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"- (?:\w+: )?([\w/-]+\.md)$", site, re.M)
    assert {f"docs/{name}" for name in listed} == {name for name in PAGES if name.startswith("docs/")}


def test_readme_repeats_what_docs_say():
    """Rows that stand on two pages are the same on both."""
    codes = re.findall(r"^.*\| \d+ \|.*$", README.partition("## What it says")[2].partition("##")[0], re.M)
    assert codes
    assert all(row in PAGES["docs/check.md"] for row in codes)
    figures = re.findall(r"\d+\.\d %", README)
    assert figures
    assert all(figure in PAGES["docs/accuracy.md"] for figure in figures)


WHERE = re.findall(r"^\| .* \| `([\w/.]+)` \| `(\w+)` \|$", PAGES["docs/how-it-works.md"], re.M)
SOUGHT = {
    "limits": "avsync_cli/spec.py",
    "a track is cut": "avsync_cli/tracks.py",
    "| confidence |": "avsync_cli/confidence.py",
    "int8 or fp32": "avsync_cli/precision.py",
    "25 fps": "avsync_cli/grid.py",
    "MTD loss": "training/losses/distillation.py",
    "negatives": "training/data/pairs.py",
    "calibration": "training/evaluation/calibrate.py",
}


@pytest.mark.parametrize(("path", "name"), WHERE)
def test_what_is_to_be_found_is_there(path, name):
    """The table of how-it-works: each file is opened, and defines the name at its top."""
    body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    named = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assigned = {target for node in body if isinstance(node, ast.Assign) for target in node.targets}
    assigned |= {node.target for node in body if isinstance(node, ast.AnnAssign)}
    assert name in named | {target.id for target in assigned if isinstance(target, ast.Name)}


@pytest.mark.parametrize(("what", "path"), SOUGHT.items())
def test_where_is_told(what, path):
    rows = [row for row in PAGES["docs/how-it-works.md"].splitlines() if row.startswith("|") and what in row]
    assert any(f"`{path}`" in row for row in rows)


def test_every_exit_code_is_told():
    from avsync_cli import errors

    codes = [value for name, value in vars(errors).items() if name.startswith("EXIT_")]
    assert all(re.search(rf"\| {code} \|", README) for code in codes)


def test_every_json_field_is_told():
    from avsync_cli.report import Report

    fields = Report("f", "error", "m", (-1, 1)).to_json()
    assert all(f"`{name}`" in PAGES["docs/json.md"] for name in fields)


def test_every_field_and_reason_of_a_scan_is_told():
    from typing import get_args

    from avsync_cli.batch.records import FailureReason

    assert all(f"| `{name}` |" in PAGES["docs/scan.md"] for name in ("path", "size", "mtime"))
    reasons = PAGES["docs/scan.md"] + PAGES["docs/json.md"]
    assert all(f"`{reason}`" in reasons for reason in get_args(FailureReason))
