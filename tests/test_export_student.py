"""A checkpoint becomes a student that gives torch's numbers."""

import json
import shutil

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from avsync_cli.contract import contract
from avsync_cli.errors import ConfigError
from avsync_cli.mel import MelTrack
from avsync_cli.model import load_student
from export.__main__ import app
from export.student import export_student
from export.trained import open_trained
from training.config import MatchConfig, ModelConfig
from training.networks.window_match import MatchNet
from training.weights.match_checkpoint import Checkpoint, averaged_net, load_checkpoint, save_checkpoint

pytestmark = pytest.mark.slow  # the exporter takes seconds

CALIBRATION = {"weights": [0.0, 1.0, 1.0, 1.0, 1.0], "min_confidence": 0.5, "spread_ms": [20.0, 100.0]}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights, with norms that have seen data, so that folding them matters."""
    torch.manual_seed(0)
    model = ModelConfig(embedding=32, video_widths=(8, 8, 16), lips_width=16, audio_widths=(8, 8, 8, 16))
    net = MatchNet(model).train()
    for _ in range(3):
        net(255 * torch.rand(8, 5, 48, 96), torch.randn(8, 5, 120) + 0.5, torch.randn(8, 80, 16) - 1)
    torch.nn.init.normal_(net.video_head.gate.weight, std=0.2)
    path = tmp_path_factory.mktemp("run") / "last.pt"
    config = MatchConfig(cache="cache", steps=1, model=model)
    origin = {"commit": "abc", "cache_manifest_sha256": "def"}
    save_checkpoint(path, Checkpoint(config, 1, net.state_dict(), net.state_dict(), {}, origin))
    return path


@pytest.fixture(scope="module")
def student_folder(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("students")
    (folder / "calibration.json").write_text(json.dumps(CALIBRATION))
    command = ["onnx", str(checkpoint), "-o", str(folder / "small")]
    result = CliRunner().invoke(app, [*command, "--calibration", str(folder / "calibration.json")])
    assert result.exit_code == 0, result.output
    assert "video.onnx" in result.output
    return folder / "small"


def test_onnx_equals_torch_for_clips_of_every_length(checkpoint, student_folder):
    net = averaged_net(load_checkpoint(checkpoint))
    student = load_student(student_folder)
    rng = np.random.default_rng(0)
    for frames in (5, 6, 50):
        crops = rng.integers(0, 256, (frames, 48, 96)).astype(np.uint8)
        lips = rng.standard_normal((frames, 40, 3)).astype(np.float32)
        mel = MelTrack(rng.standard_normal((16 * frames // 5 + 1, 80)).astype(np.float32), 3, 3, frames - 4)
        rows = np.arange(frames - 4)[:, None] + np.arange(5)
        with torch.no_grad():
            video = net.encode_video(
                torch.from_numpy(crops[rows]).float(), torch.from_numpy(lips[rows]).flatten(2)
            )
            audio = net.encode_audio(torch.from_numpy(mel.windows()))
        assert np.allclose(student.encode_video(crops, lips), video, atol=1e-4)
        assert np.allclose(student.encode_audio(mel, mel.all_ticks), audio, atol=1e-4)
        scores = student.score(video.numpy(), audio.numpy())
        assert np.allclose(scores, (video * audio).sum(1), atol=1e-4)


def test_model_json_says_where_it_comes_from(student_folder):
    declared = json.loads((student_folder / "model.json").read_text())
    assert declared.items() >= contract().items()
    assert (declared["video_width"], declared["audio_width"], declared["reach_frames"]) == (32, 32, 0)
    assert declared["name"] == "small"
    assert declared["training"]["commit"] == "abc"
    assert declared["training"]["config"]["model"]["embedding"] == 32
    assert load_student(student_folder).calibration.weights == (0.0, 1.0, 1.0, 1.0, 1.0, 0.0)
    assert not list(student_folder.parent.glob(".student-*"))


@pytest.mark.slow
@pytest.mark.repeats
def test_an_older_student_is_replaced(checkpoint, tmp_path):
    export_student(open_trained(checkpoint), tmp_path / "s", name="one")
    (tmp_path / "s" / "old").touch()
    export_student(open_trained(checkpoint), tmp_path / "s", name="other")
    assert load_student(tmp_path / "s").name == "other"
    assert load_student(tmp_path / "s").calibration is None
    assert not (tmp_path / "s" / "old").exists()


def test_a_calibration_that_is_lost_is_told(checkpoint, student_folder, tmp_path):
    shutil.copytree(student_folder, tmp_path / "s")
    for told in (True, False):  # the second time there is none to lose
        result = CliRunner().invoke(app, ["onnx", str(checkpoint), "-o", str(tmp_path / "s")])
        assert result.exit_code == 0, result.output
        assert ("calibration is gone" in result.output) == told


def test_a_folder_of_something_else_is_left_alone(checkpoint, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "precious.pt").touch()
    with pytest.raises(ConfigError, match="something else"):
        export_student(open_trained(checkpoint), tmp_path / "runs")
    assert (tmp_path / "runs" / "precious.pt").exists()


def test_a_bad_calibration_is_refused(checkpoint, tmp_path):
    (tmp_path / "c.json").write_text('{"weights": []}')
    with pytest.raises(ConfigError, match="a calibration has"):
        export_student(open_trained(checkpoint), tmp_path / "s", calibration=tmp_path / "c.json")
    assert not (tmp_path / "s").exists()
