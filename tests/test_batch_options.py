"""How a scan is run: as one value, as keywords, and as both."""

from dataclasses import fields
from typing import get_type_hints

import pytest
from scan_stubs import load_stub, write_files

import avsync_cli
from avsync_cli import CheckOptions, ConfigError, ScanOptions, scan_files
from avsync_cli.batch.journal import read_answers
from avsync_cli.batch.options import ScanKeywords
from avsync_cli.options import CheckKeywords


def types_of(options):
    hints = get_type_hints(options)
    return {field.name: hints[field.name] for field in fields(options)}


def test_every_option_is_a_keyword_too():
    assert get_type_hints(CheckKeywords) == types_of(CheckOptions)
    assert get_type_hints(ScanKeywords) == types_of(CheckOptions) | types_of(ScanOptions)
    assert not types_of(CheckOptions).keys() & types_of(ScanOptions).keys()


def test_options_and_keywords_mean_the_same_and_keywords_go_first(tmp_path):
    folder = tmp_path / "in"
    write_files(folder, *["divide"] * 3)  # an error tells the limits that were asked for
    asked = {"include": ["000.mp4", "001.mp4"], "exclude": ["001.mp4"]}
    found = {}
    for name, given in {
        "values": {"scan": ScanOptions(jobs=1, **asked), "options": CheckOptions(tolerance="film")},
        "keywords": {"jobs": 1, "tolerance": "film", **asked},
        "both": {
            "scan": ScanOptions(jobs=1, include=["002.mp4"], exclude=["001.mp4"]),
            "options": CheckOptions(tolerance="ebu-r37"),
            "include": ["000.mp4", "001.mp4"],
            "tolerance": "film",
        },
    }.items():
        results = tmp_path / f"{name}.jsonl"
        scan_files([str(folder)], results, load=load_stub, **given)
        found[name] = [(answer["path"], answer["limits_ms"]) for answer in read_answers(results)]
    assert found["values"] == [(str(folder / "000.mp4"), [-83.0, 42.0])]
    assert found["keywords"] == found["both"] == found["values"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"timeout_s": 0}, "times must be above 0"),
        ({"cpu_s": float("nan")}, "times must be above 0"),
        ({"memory_mb": 63}, "memory must be at least 64 MB"),
        ({"copy_mb": 0}, "copies at least 1 MB"),
        ({"scheduler": "tcp://h:1", "fix": True}, "without --scheduler"),
        ({"scheduler": "tcp://h:1", "jobs": 2}, "--jobs is for this machine"),
    ],
)
def test_what_cannot_be_done_is_refused_before_a_file_is_written(wrong, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        ScanOptions(**wrong)
    with pytest.raises(ConfigError, match=words):
        scan_files([str(tmp_path)], tmp_path / "r.jsonl", **wrong)
    with pytest.raises(ConfigError, match="one video"):
        scan_files([str(tmp_path)], tmp_path / "r.jsonl", options=CheckOptions(audio="sound.wav"))
    with pytest.raises(TypeError, match="tolerence"):
        scan_files([str(tmp_path)], tmp_path / "r.jsonl", tolerence="film")
    assert list(tmp_path.iterdir()) == []


def test_the_options_are_at_the_top():
    assert {"CheckOptions", "ScanOptions", "FixOptions"} <= set(avsync_cli.__all__)
