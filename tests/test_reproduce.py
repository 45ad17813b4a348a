"""The paper in one command: every experiment runs, and what is done is not done again."""

import pytest
from toy_lrs2 import write_toy
from typer.testing import CliRunner

from training.__main__ import app

EXPERIMENTS = {"table2": 4}  # and its number of runs


@pytest.mark.slow
def test_the_paper_from_videos_to_comparison(tmp_path):
    root, output = write_toy(tmp_path / "toy"), tmp_path / "all"
    arguments = [
        "reproduce",
        str(root),
        "-o",
        str(output),
        "--experiments",
        *EXPERIMENTS,
        "--smoke",
        "--jobs",
        "1",
    ]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    written = {path: path.stat().st_mtime_ns for path in output.glob("runs/*/metrics.json")}
    assert len(written) == 1 + EXPERIMENTS["table2"]  # and the teacher's
    text = (output / "comparison" / "comparison.md").read_text()
    assert all(f"| {label} | Table 2 |" in text for label in ("BCE", "NMTD w/o VR", "NMTD w/o CAD", "NMTD"))
    assert "Published figures" in text

    # A run whose figures are missing is measured again from its checkpoint; nothing else is touched.
    removed = output / "runs" / "table2-bce" / "metrics.json"
    removed.unlink()
    best = removed.with_name("best.pt").stat().st_mtime_ns
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0, again.output
    for path, time in written.items():
        assert (path.stat().st_mtime_ns == time) == (path != removed), path
    assert removed.with_name("best.pt").stat().st_mtime_ns == best


def test_an_unknown_experiment_is_refused(tmp_path):
    result = CliRunner().invoke(
        app, ["reproduce", str(tmp_path), "-o", str(tmp_path), "--experiments", "fig5"]
    )
    assert "'fig5': not one of table1" in str(result.exception)
