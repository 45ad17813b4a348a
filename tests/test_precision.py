"""Which arithmetic the student runs in, and that answers tell it."""

import json
import shutil

import pytest
from students import add_int8, write_student
from test_cli import assert_one_line, avsync

from avsync_cli.batch.run import scan_files
from avsync_cli.check import check_file, load_engine
from avsync_cli.errors import ConfigError, ModelError
from avsync_cli.machine import Cpu
from avsync_cli.precision import choose_precision

PLAIN = Cpu("x86_64", "EPYC", ("avx2",))
VNNI = Cpu("x86_64", "Xeon", ("avx2", "avx512_vnni"))
PI_4 = Cpu("aarch64", "Cortex-A72", ("asimd",))
PI_5 = Cpu("aarch64", "Cortex-A76", ("asimd", "asimddp"))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A student with an int8 graph, whose scores are twice as high."""
    return add_int8(write_student(tmp_path_factory.mktemp("both") / "student"))


@pytest.mark.parametrize(("cpu", "chosen"), [(PLAIN, "fp32"), (VNNI, "int8"), (PI_4, "fp32"), (PI_5, "int8")])
def test_auto_takes_int8_where_the_cpu_multiplies_bytes_and_the_student_has_them(both, handmade, cpu, chosen):
    assert choose_precision("auto", both, cpu=cpu) == chosen
    assert choose_precision("auto", handmade, cpu=cpu) == "fp32"
    assert choose_precision("int8", both, cpu=cpu) == "int8"
    assert choose_precision("fp32", both, cpu=cpu) == "fp32"


def test_what_cannot_be_had_is_an_error(handmade, heads):
    with pytest.raises(ConfigError, match="fp16"):
        choose_precision("fp16", handmade)
    with pytest.raises(ModelError, match="no int8"):
        load_engine(handmade, precision="int8")
    with pytest.raises(ConfigError, match="belong to the engine"):
        check_file(heads[0], engine=load_engine(handmade, threads=1), precision="int8")
    result = avsync("check", heads[0], "--model", handmade, "--precision", "int8")
    assert result.returncode == 5
    assert_one_line(result, "no int8")


def test_a_check_runs_what_is_asked_and_says_so(both, heads):
    reports = {p: check_file(heads[160], model=both, threads=1, precision=p) for p in ("fp32", "int8")}
    for precision, report in reports.items():
        assert report.model.precision == precision
        assert report.to_json()["model"]["precision"] == precision
    assert reports["fp32"].model.sha256 != reports["int8"].model.sha256
    assert max(reports["int8"].curve) == pytest.approx(2 * max(reports["fp32"].curve), rel=1e-3)
    words = avsync("check", heads[160], "--model", both, "--precision", "int8", "-v").stdout
    assert f"{reports['int8'].model.sha256[:12]}, int8" in words


def test_a_scan_in_another_precision_asks_again(both, heads, tmp_path):
    folder, results = tmp_path / "in", tmp_path / "out.jsonl"
    folder.mkdir()
    shutil.copy(heads[160], folder)
    for precision, answered in (("int8", 1), ("int8", 0), ("fp32", 1)):
        scanned = scan_files([str(folder)], results, model=both, precision=precision, jobs=1, resume=True)
        assert scanned.answered == answered
    first, second = map(json.loads, results.read_bytes().splitlines())
    assert [r["model"]["precision"] for r in (first, second)] == ["int8", "fp32"]
    assert max(first["curve"]) == pytest.approx(2 * max(second["curve"]), rel=1e-3)
