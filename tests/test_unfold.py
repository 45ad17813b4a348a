"""A checkpoint unfolded from an exported student is the same function, and can be started from."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from noise_clips import made_clip
from students import write_student

from avsync_cli.contract import DEFAULT_STUDENT, read_contract
from avsync_cli.errors import ModelError
from avsync_cli.model import load_student
from export.student import export_student
from export.trained import Trained
from training.config import MatchConfig
from training.evaluation.score_clips import score_clip, student_encoders
from training.evaluation.torch_encoders import match_encoders
from training.networks.token_match import make_match_net
from training.weights.match_checkpoint import BUNDLED, averaged_net, halved, load_start, save_checkpoint
from training.weights.unfold import unfold_student


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A student whose norms are those of no training: every mean, variance, weight and bias differs."""
    torch.manual_seed(5)
    net = make_match_net(MatchConfig(cache="", steps=1, network="mtdvocalist-edge")).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            for value, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.3, 0.3),
            ):
                value.uniform_(low, high)
    folder = tmp_path_factory.mktemp("students") / "student"
    return export_student(Trained(net, "grey-mouth-48x96-eye1.8-hann7", {}), folder)


@pytest.fixture(scope="module")
def clips():
    return [made_clip(name=f"{number}") for number in range(3)]


def test_the_unfolded_net_gives_the_student_s_scores(exported, clips, tmp_path):
    checkpoint = unfold_student(exported, clips)
    save_checkpoint(tmp_path / "checkpoint.pt", checkpoint)
    net = averaged_net(load_start(tmp_path / "checkpoint.pt"))
    student = load_student(exported)
    for clip in clips:
        ours, theirs = (
            score_clip(clip, encoders) for encoders in (match_encoders(net), student_encoders(student))
        )
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_norms_measure_what_they_undo(exported, clips):
    """In training mode, where norms use the batch's own statistics, the net is nearly the same function."""
    net = averaged_net(unfold_student(exported, clips))
    norm = net.video_encoder.trunk.picture[0].norm
    scale = norm.weight.detach() ** 2 / (norm.running_var + norm.eps)
    torch.testing.assert_close(scale, torch.ones_like(scale))
    assert float(norm.running_var.min()) > 0


def test_half_precision_keeps_the_scores(exported, clips, tmp_path):
    checkpoint = unfold_student(exported, clips)
    save_checkpoint(tmp_path / "half.pt", halved(checkpoint))
    save_checkpoint(tmp_path / "whole.pt", checkpoint)
    assert (tmp_path / "half.pt").stat().st_size < 0.55 * (tmp_path / "whole.pt").stat().st_size
    whole, half = (averaged_net(load_start(tmp_path / name)) for name in ("whole.pt", "half.pt"))
    ours, theirs = (score_clip(clips[0], match_encoders(net)) for net in (half, whole))
    assert np.nanmax(np.abs(ours - theirs)) < 0.05


def test_a_student_s_zero_goes_into_its_head(exported, clips):
    """With a zero of three mel steps the unfolded head reads three steps earlier what it read before."""
    path = exported / "model.json"
    before = path.read_text()
    plain = unfold_student(exported, clips).average["audio_head.embedding.weight"].unflatten(1, (16, -1))
    try:
        path.write_text(json.dumps(json.loads(before) | {"zero_ms": 37.5}))
        moved = unfold_student(exported, clips).average["audio_head.embedding.weight"].unflatten(1, (16, -1))
    finally:
        path.write_text(before)
    assert torch.equal(moved[:, :13], plain[:, 3:])
    assert not moved[:, 13:].any()


def test_another_network_is_refused(clips, tmp_path):
    with pytest.raises(ModelError, match="not a student of mtdvocalist-edge"):
        unfold_student(write_student(tmp_path / "other"), clips)


def test_the_bundled_start_is_the_one_that_the_bundled_student_names():
    declared, _ = read_contract(DEFAULT_STUDENT)
    assert hashlib.sha256(BUNDLED.read_bytes()).hexdigest() == declared["start_sha256"]
    assert BUNDLED.stat().st_size < 8 * 2**20


def test_the_bundled_start_gives_the_bundled_student_s_scores(clips):
    """To what half precision leaves of them."""
    net, student = averaged_net(load_start(Path("bundled"))), load_student(DEFAULT_STUDENT)
    encoders = replace(match_encoders(net), zero_ms=student.zero_ms)
    ours, theirs = score_clip(clips[0], encoders), score_clip(clips[0], student_encoders(student))
    assert np.nanmax(np.abs(ours - theirs)) < 0.02 * np.nanstd(theirs) + 0.05
