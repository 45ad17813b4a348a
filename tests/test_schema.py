"""The published JSON Schemas: made of the dataclasses, and right about what is printed and written."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from clips import write_clip
from jsonschema import Draft202012Validator, ValidationError
from test_cli import avsync

from avsync_cli.batch.records import FileError, Item, make_record
from avsync_cli.check import check_file
from avsync_cli.errors import MediaError
from avsync_cli.fix import FixOptions, fix_file
from avsync_cli.report import ModelId, error_report
from avsync_cli.schema import fix_schema, read_schema, report_schema, result_schema
from avsync_cli.spec import TOLERANCES

ITU = TOLERANCES["itu-detect"]
MODEL = ModelId("a", "0" * 64)


def assert_fits(value, name: str) -> None:
    Draft202012Validator(read_schema(name)).validate(json.loads(json.dumps(value)))


@pytest.mark.parametrize(
    ("name", "made"), [("report", report_schema()), ("result", result_schema()), ("fix", fix_schema())]
)
def test_what_is_published_is_made_of_the_dataclasses(name, made):
    """`python -m avsync_cli.schema` writes the files anew."""
    assert read_schema(name) == made
    Draft202012Validator.check_schema(made)


def write_faceless(path: Path) -> Path:
    return write_clip(path, seconds=2, sound=np.zeros(32_000, np.float32), rate=16_000)


def test_reports_and_results_of_every_status_fit(tmp_path, heads, engine):
    paths = (heads[0], heads[160], write_faceless(tmp_path / "faceless.mp4"))
    reports = [check_file(path, engine=engine) for path in paths]
    reports.append(error_report("a.mp4", MediaError("a.mp4: no audio", "no_audio"), ITU))
    assert [each.status for each in reports] == ["in_sync", "out_of_sync", "undetermined", "error"]
    item = Item("a.mp4", "/a.mp4", 1, 12.5)
    for report in reports:
        assert_fits(report.to_json(), "report")
        identity = report.model or MODEL
        assert_fits(make_record(item, report.to_json(), limits=ITU, model=identity), "result")
    lost = FileError("timeout", "took longer than it may")
    assert_fits(make_record(item, lost, limits=ITU, model=MODEL), "result")


def test_a_fix_fits(tmp_path, heads, engine):
    path = tmp_path / "a.mp4"
    path.write_bytes(heads[160].read_bytes())
    for options in (FixOptions(), FixOptions(by_ms=100, overwrite=True)):
        assert_fits(fix_file(path, partial(check_file, engine=engine), options).to_json(), "fix")
    refused = fix_file(write_faceless(tmp_path / "b.mp4"), partial(check_file, engine=engine))
    assert refused.status == "refused"
    assert_fits(refused.to_json(), "fix")


def test_what_is_printed_fits(tmp_path, handmade):
    path = write_clip(tmp_path / "mute.mp4", seconds=0.4)
    printed = avsync("check", path, tmp_path / "missing.mp4", "--json", "--model", handmade).stdout
    assert len(printed.splitlines()) == 2
    for line in printed.splitlines():
        assert_fits(json.loads(line), "report")


def test_what_does_not_fit_is_found(heads, engine):
    report = check_file(heads[160], engine=engine).to_json()
    lacking = {name: value for name, value in report.items() if name != "fps"}
    for wrong in (lacking, report | {"more": 1}, report | {"status": "fine"}, report | {"limits_ms": [1]}):
        with pytest.raises(ValidationError):
            assert_fits(wrong, "report")
