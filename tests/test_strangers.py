"""What a name, a results file or a model's folder from elsewhere can do: no more than be told of."""

import csv
import hashlib
import json
import os
import re
import subprocess

import onnx
import pytest
from rich.console import Console
from students import write_student

from avsync_cli.batch.journal import open_journal, read_answers
from avsync_cli.batch.records import Item, make_record
from avsync_cli.batch.summary import print_summary, summarise
from avsync_cli.batch.tables import write_csv
from avsync_cli.contract import identify_student
from avsync_cli.display import print_report
from avsync_cli.errors import ConfigError, MediaError, ModelError, ScanError, complain
from avsync_cli.escapes import as_cell, as_text, printable, quote_name
from avsync_cli.model import load_student
from avsync_cli.report import ModelId, Report, error_report
from avsync_cli.spec import TOLERANCES

LIMITS = TOLERANCES["itu-detect"]
NASTY = [
    "esc\x1b[31mred.mp4",
    "title\x1b]0;x\x07.mp4",
    "c1\x9b31m.mp4",
    "rtl\u202e4pm.mp4",
    "new\nline.mp4",
    "[red]m[bold].mp4",
    "a[/b].mp4",
    "back\\[slash\\.mp4",
    "no\udcff\udcfetext.mp4",
    "quote'$(touch x)`y`.mp4",
]
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


def report_of(name: str, status: str = "out_of_sync") -> Report:
    return Report(
        file=name,
        status=status,
        message=f"{name}: audio leads",
        limits_ms=(-125.0, 45.0),
        audio_lead_ms=80.0,
        audio_lead_frames=2.0,
        uncertainty_ms=10.0,
        direction="audio_leads",
        confidence=0.9,
    )


def record_of(name: str, **changes):
    item = Item(name, f"/{name}", 1, 2.0)
    return make_record(item, report_of(name).to_json(), limits=LIMITS, model=ModelId("m", "0")) | changes


@pytest.mark.parametrize("name", NASTY)
def test_nothing_that_is_printed_can_move_a_terminal(name, capsys):
    complain(f"{name}: No such file or directory")
    print_report(report_of(name), verbose=True)
    print_summary(summarise([record_of(name)]))
    said = capsys.readouterr()
    assert not CONTROL.search(said.out + said.err)
    assert printable(" ".join(name.split())) in said.err
    assert said.out.count(printable(name)) >= 2


@pytest.mark.parametrize("name", NASTY)
def test_a_name_is_never_markup(name):
    console = Console(width=200, highlight=False)
    with console.capture() as shown:
        console.print(as_text("see ", (name, "bold")))
    assert shown.get().rstrip("\n") == f"see {printable(name)}"


@pytest.mark.parametrize("name", [*NASTY, "-o.mp4", "plain.mp4", "it's.mp4", "tab\there.mp4"])
def test_a_quoted_name_is_the_same_name_to_a_shell(name):
    quoted = quote_name(name)
    assert quoted.isprintable()
    said = subprocess.run(["bash", "-c", f"printf %s {quoted}"], capture_output=True, check=True).stdout
    assert said == os.fsencode(name)


def test_no_cell_is_a_formula(tmp_path):
    names = ["=1+1.mp4", "@x.mp4", "+y.mp4", "-z.mp4", "esc\x1b[31m.mp4"]
    records = [record_of(name, path=name) for name in names]
    write_csv(records, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, name in zip(rows, names, strict=True):
        assert row["path"] == row["message"].partition(": audio")[0] == as_cell(name)
        assert not row["path"].startswith(("=", "@", "+", "-"))
        assert not CONTROL.search("".join(row.values()))
        assert float(row["audio_lead_ms"]) == 80


@pytest.mark.parametrize(
    "change",
    [
        {"path": 5},
        {"status": "fine"},
        {"limits_ms": ["a", 1]},
        {"limits_ms": [1]},
        {"size": "x"},
        {"mtime": []},
        {"tracks": None},
        {"timings_s": {}},
        {"model": {"sha256": "0"}},
        {"audio_lead_ms": None},
        {"audio_lead_ms": "far"},
        {"message": None},
        {"reason": 3},
    ],
)
def test_a_results_line_from_elsewhere_is_told_by_its_number(tmp_path, change):
    path = tmp_path / "r.jsonl"
    lines = [record_of("a.mp4"), record_of("b.mp4", **change)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ConfigError, match=r"r\.jsonl, line 2: is not a result"):
        list(read_answers(path))


@pytest.mark.parametrize("line", ["[" * 100_000, '{"a":' * 50_000, "null", "5", "{}", "\x00"])
def test_a_line_that_is_no_object_of_ours_is_told(tmp_path, line):
    path = tmp_path / "r.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ConfigError, match=r"r\.jsonl, line 1: is not a result"):
        list(read_answers(path))


@pytest.mark.parametrize("replace", [False, True])
def test_results_that_are_removed_end_the_scan_at_once(tmp_path, replace):
    path = tmp_path / "r.jsonl"
    with open_journal(path, limits=LIMITS) as journal:
        journal.append(record_of("a.mp4"))
        path.unlink()
        if replace:
            path.touch()
        with pytest.raises(ScanError, match="was removed or replaced"):
            journal.append(record_of("b.mp4"))


@pytest.fixture
def folder(tmp_path):
    return write_student(tmp_path / "student")


def change(folder, **values) -> None:
    declared = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(declared | values))


@pytest.mark.parametrize(
    "name", ["/dev/zero", "../video.onnx", "a/b.onnx", "..", "nul\0.onnx", ".hidden", ""]
)
def test_a_graph_lies_in_its_folder(folder, name):
    declared = json.loads((folder / "model.json").read_text())
    declared["graphs"]["video"]["file"] = name
    change(folder, graphs=declared["graphs"])
    for read in (load_student, identify_student):
        with pytest.raises(ModelError, match="no plain name"):
            read(folder)


@pytest.mark.parametrize("name", ["model.json", "video.onnx"])
def test_a_pipe_in_a_folder_is_refused_at_once(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ModelError, match="is not a regular file"):
        load_student(folder)


def test_a_deep_contract_is_refused(folder):
    (folder / "model.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match="not valid JSON"):
        load_student(folder)


@pytest.mark.parametrize("key", ["reach_frames", "reach_mel_steps", "chunk_windows", "video_width"])
def test_sizes_that_fill_memory_are_the_models_fault(folder, key):
    change(folder, **{key: 100_000_000})
    with pytest.raises(ModelError, match=f"{key} = 100000000 is more than"):
        load_student(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"weights": [float("inf")] * 5},
        {"weights": [1e300] * 5},
        {"spread_ms": [-5, 1]},
        {"min_confidence": 7},
        {"min_confidence": float("nan")},
        {"spread_ms": [10**400, 1]},
    ],
)
def test_a_calibration_out_of_range_is_refused(folder, values):
    declared = json.loads((folder / "model.json").read_text())
    calibration = declared.get("calibration") or {
        "weights": [0.0] * 5, "min_confidence": 0.5, "spread_ms": [1.0, 1.0]
    }  # fmt: skip
    change(folder, calibration=calibration | values)
    with pytest.raises(ModelError, match="its calibration cannot be read"):
        load_student(folder)


def test_json_of_a_check_keeps_every_name(capsys):
    from avsync_cli.cli import _print_json

    for name in NASTY:
        _print_json(error_report(name, MediaError(f"{name}: no"), LIMITS))
        line = capsys.readouterr().out
        assert line.isascii()
        assert json.loads(line)["file"] == name


def replace_graph(folder, graph) -> None:
    """Another video graph, and the hash that goes with it."""
    data = graph.SerializeToString()
    (folder / "video.onnx").write_bytes(data)
    declared = json.loads((folder / "model.json").read_text())
    declared["graphs"]["video"]["sha256"] = hashlib.sha256(data).hexdigest()
    change(folder, graphs=declared["graphs"])


@pytest.mark.parametrize(
    ("add", "told"),
    [
        (lambda graph: graph.graph.node.add(op_type="Loop"), "has the operator b'Loop'"),
        (lambda graph: graph.graph.node.add(op_type="If"), "has the operator b'If'"),
        (lambda graph: graph.graph.node.add(op_type="Own", domain="a.test"), "of b'a.test'"),
        (lambda graph: graph.functions.add(name="own", domain="a.test"), "has functions of its own"),
        (lambda graph: [graph.graph.node.add(op_type="Abs") for _ in range(10_000)], "more than 10000"),
    ],
)
def test_what_a_graph_computes_with_is_bounded(folder, add, told):
    graph = onnx.load(folder / "video.onnx")
    replace_graph(folder, graph)
    load_student(folder)
    add(graph)
    replace_graph(folder, graph)
    with pytest.raises(ModelError, match=f"video.onnx: .*{told}"):
        load_student(folder)
