"""A student gets int8 graphs whole or not at all, and parity says what they cost."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from recipes import STUDENT
from students import add_int8, write_far_student, write_student
from synthetic_cache import make_cache
from test_export_graphs import settle, tiny
from test_export_rewrite import with_random_norms
from typer.testing import CliRunner

from avsync_cli.contract import precisions_of
from avsync_cli.errors import ConfigError, ModelError
from avsync_cli.model import load_student
from avsync_cli.spec import CROP_DEFINITION
from export.__main__ import app
from export.footprint import time_scan_s
from export.parity import Parity, agreement_percent, compare_forms, lead_of
from export.quantize import quantize_student, scores_drift
from export.stretches import draw_stretches
from export.student import export_student
from export.trained import Trained
from training.data.cache import read_manifest
from training.data.clips import load_clips


def content_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("prepared") / "cache", clips=9, frames=60)


@pytest.fixture(scope="module")
def plain(tmp_path_factory, cache):
    """A tiny cross-modal student with random weights."""
    torch.manual_seed(0)
    net = settle(with_random_norms(tiny(STUDENT)), load_clips(cache, split="val")[0])
    return export_student(Trained(net, CROP_DEFINITION, {}), tmp_path_factory.mktemp("student") / "plain")


@pytest.fixture
def student(plain, tmp_path):
    folder = tmp_path / "student"
    folder.mkdir()
    for name, data in content_of(plain).items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.slow
def test_all_graphs_run_in_int8_and_scores_are_near(student, plain, cache):
    made = quantize_student(student, cache)
    assert made.graphs == ("video", "audio", "pair")
    assert precisions_of(student) == ("fp32", "int8")
    assert made.drift[made.method] == min(made.drift.values())
    assert set(made.drift) == {"percentile", "entropy", "minmax"}
    reference, int8 = load_student(student), load_student(student, precision="int8")
    stretches = draw_stretches(cache, reference.layout, seed=0)
    # Scores that have nothing to do with each other would drift by 1.4; tiny random networks are sensitive.
    assert 1e-4 < scores_drift(int8, reference, stretches.calibrated) < 0.7
    assert scores_drift(reference, load_student(plain), stretches.held_back) == 0
    recorded = json.loads((student / "model.json").read_text())["quantization"]
    assert (recorded["method"], recorded["seed"]) == (made.method, 0)
    train = {clip.file for clip in read_manifest(cache) if clip.split == "train"}
    assert train == {*recorded["calibrated_on"], *recorded["judged_on"]}
    assert not {*recorded["calibrated_on"]} & {*recorded["judged_on"]}
    before = content_of(student)
    quantize_student(student, cache, method=made.method)
    after = content_of(student)
    assert {k: v for k, v in after.items() if k != "model.json"} == {
        k: v for k, v in before.items() if k != "model.json"
    }


@pytest.mark.slow
def test_half_storage_is_of_the_fp32_graphs_and_moves_scores_little(student, plain, cache):
    result = CliRunner().invoke(app, ["quantize", str(student), "--storage", "fp16"])
    assert result.exit_code == 0, result.output
    assert precisions_of(student) == ("fp32", "int8")  # the pair graph needs no clips
    for graph in ("video", "audio", "pair"):
        assert (student / f"{graph}.onnx").stat().st_size < (plain / f"{graph}.onnx").stat().st_size
    halved, full = load_student(student), load_student(plain)
    drift = scores_drift(halved, full, draw_stretches(cache, full.layout, seed=0).held_back)
    assert 0 < drift < 0.01


@pytest.mark.slow
def test_an_interrupt_leaves_the_student_as_it_was(student, cache):
    before = content_of(student)
    process = subprocess.Popen(
        [sys.executable, "-m", "export", "quantize", str(student), "--cache", str(cache)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 600
    while not list(student.parent.glob(".student-*/*/model.json")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=600) != 0
    assert content_of(student) == before
    assert [path.name for path in student.parent.iterdir()] == ["student"]


def test_what_cannot_be_quantised_is_left_alone(tmp_path):
    folder = write_student(tmp_path / "student")
    before = content_of(folder)
    with pytest.raises(ConfigError, match="nothing in it to quantize"):
        quantize_student(folder)
    with pytest.raises(ConfigError, match="--method: needs --cache"):
        quantize_student(folder, method="minmax")
    result = CliRunner().invoke(app, ["quantize", str(folder), "--cache", str(tmp_path / "none")])
    assert result.exit_code == 2
    assert "no manifest of a cache" in result.output
    assert content_of(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


@pytest.mark.parametrize("int8", [{"pair": {}}, {"pair": 3}, ["pair"], {"other": {}}])
def test_int8_entries_that_cannot_be_read_are_refused(tmp_path, int8):
    folder = write_student(tmp_path / "student", int8=int8)
    before = content_of(folder)
    with pytest.raises(ModelError, match=r"model\.json"):
        quantize_student(folder, storage="fp16")
    assert content_of(folder) == before


def test_no_int8_entries_are_none(tmp_path):
    folder = write_student(tmp_path / "student", int8=None)
    quantize_student(folder, storage="fp16")
    assert precisions_of(folder) == ("fp32",)


@pytest.mark.parametrize("storage", ["fp32", "fp16"])
def test_int8_encoders_are_not_lost_for_want_of_a_cache(tmp_path, storage):
    folder = write_student(tmp_path / "student")
    declared = json.loads((folder / "model.json").read_text())
    declared["int8"] = {"video": declared["graphs"]["video"]}
    (folder / "model.json").write_text(json.dumps(declared))
    before = content_of(folder)
    with pytest.raises(ConfigError, match="give --cache"):
        quantize_student(folder, storage=storage)
    assert content_of(folder) == before


def test_what_else_lies_in_the_folder_stays(tmp_path):
    folder = add_int8(write_student(tmp_path / "student"))
    (folder / "notes" / "deep").mkdir(parents=True)
    (folder / "notes" / "deep" / "kept.txt").write_text("precious")
    (folder / "README").write_text("mine")
    quantize_student(folder, storage="fp16")
    assert (folder / "notes" / "deep" / "kept.txt").read_text() == "precious"
    assert (folder / "README").read_text() == "mine"
    assert not (folder / "pair.int8.onnx").exists()


@pytest.mark.slow
def test_storage_that_stays_in_half_is_told(student):
    assert quantize_student(student, storage="fp16").storage == "fp16"
    result = CliRunner().invoke(app, ["quantize", str(student)])
    assert result.exit_code == 0, result.output
    assert "stay stored in fp16" in result.output


def peaks(*leads):
    """Scores of 3 windows that peak at the given offset of each clip; None for a clip without sound."""
    clips = []
    for lead in leads:
        scores = np.full((3, 31), np.nan if lead is None else 0.0, np.float32)
        if lead is not None:
            scores[:, lead + 15] = 1
        clips.append(scores)
    return clips


def test_agreement_counts_clips_whose_offsets_are_a_frame_apart_at_most():
    assert [lead_of(scores) for scores in peaks(-15, 0, 15, None)] == [-15, 0, 15, None]
    assert agreement_percent(peaks(0, 3, -2, None), peaks(1, 3, -4, None)) == pytest.approx(200 / 3)
    assert agreement_percent(peaks(0, None), peaks(0, 5)) == 50
    assert agreement_percent(peaks(None), peaks(None)) == 100


def test_parity_of_nothing_is_no_success(tmp_path, cache):
    assert not Parity("student", 3, (), ()).passed
    with pytest.raises(ConfigError, match="one form only"):
        compare_forms(write_student(tmp_path / "plain"), cache)
    short = make_cache(tmp_path / "short", clips=9, frames=4)  # less than a window
    with pytest.raises(ConfigError, match="has a score to compare"):
        compare_forms(add_int8(write_student(tmp_path / "both")), short)


@pytest.mark.parametrize("place", ["missing/parity.json", "cache"])
def test_parity_refuses_what_it_cannot_write_before_it_measures(tmp_path, place):
    (tmp_path / "cache").mkdir()  # no clip is in it: what comes later is not reached
    command = ["parity", str(tmp_path / "student"), "--cache", str(tmp_path / "cache")]
    result = CliRunner().invoke(app, [*command, "-o", str(tmp_path / place)])
    assert result.exit_code == 2
    assert f"{place}: cannot be written" in result.output.replace("\n", "")


@pytest.mark.slow
def test_parity_of_short_clips_leaves_out_the_bar_of_long_ones(tmp_path):
    short = make_cache(tmp_path / "cache", clips=9, frames=14)
    found = compare_forms(add_int8(write_student(tmp_path / "student")), short, clips=1)
    assert [bar.what for bar in found.bars] == ["% of clips on which int8 agrees"]


@pytest.mark.slow
def test_parity_passes_for_the_same_curves_and_fails_for_others(tmp_path, cache):
    folder = add_int8(write_far_student(tmp_path / "student"))
    found = compare_forms(folder, cache, clips=2)
    fp32, int8 = found.forms
    assert (found.clips, fp32.name, int8.name, int8.against) == (2, "fp32", "int8", "fp32")
    assert fp32.percent == int8.percent
    assert int8.agreement_percent == 100
    assert int8.drift > int8.rms_drift > 0  # twice as high
    assert int8.file_bytes == fp32.file_bytes + sum(
        sign * (folder / name).stat().st_size for sign, name in ((1, "pair.int8.onnx"), (-1, "pair.onnx"))
    )
    assert all(time_ms > 0 for time_ms in fp32.scan_ms.values())
    assert 20 < fp32.peak_mb < 200  # a process with torch in it needs more
    assert found.passed

    add_int8(folder, factor=-1)
    command = ["parity", str(folder), "--cache", str(cache), "-o", str(tmp_path / "parity.json")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1, result.output
    written = json.loads((tmp_path / "parity.json").read_text())
    assert not written["passed"]
    assert written["forms"][1]["agreement_percent"] < 99


@pytest.mark.slow
@pytest.mark.repeats
def test_parity_with_a_checkpoint_compares_with_torch(tmp_path, cache):
    from test_export_trained import save_recipe

    torch.manual_seed(0)
    save_recipe(tmp_path / "best.pt", STUDENT)
    folder = tmp_path / "student"
    for command in (["onnx", str(tmp_path / "best.pt"), "-o", str(folder)], ["quantize", str(folder)]):
        assert CliRunner().invoke(app, command).exit_code == 0
    found = compare_forms(folder, cache, tmp_path / "best.pt", clips=1)
    assert [form.name for form in found.forms] == ["torch", "fp32", "int8"]
    by_torch, fp32, _ = found.forms
    assert fp32.against == "torch"
    assert 0 < fp32.drift < 1e-4
    assert by_torch.peak_mb > fp32.peak_mb + 50
    assert found.bars[0].passed


def test_time_and_memory_are_measured_without_torch():
    code = "import sys, export.footprint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_time_is_that_of_the_clock():
    assert 0.02 <= time_scan_s(lambda: time.sleep(0.02)) < 10  # and not in ms
