"""The residual on a matching: it begins at the cosine, and a run of it goes on to the same numbers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_cache import DOMAINS, make_cache
from torch.nn import functional as F
from typer.testing import CliRunner

from avsync_cli.errors import ConfigError
from training.__main__ import app
from training.config import DataConfig
from training.data.clips import Validity, load_clips
from training.data.provenance import provenance_of
from training.evaluation.score_clips import score_clip
from training.evaluation.torch_encoders import match_encoders, residual_encoders
from training.loops.residual import (
    choose,
    draw_rows,
    hashes_of,
    make_trainer,
    open_matching,
    restore,
    snapshot,
    train,
    train_step,
    validate,
)
from training.losses.residual import candidate_loss, run_loss
from training.networks.residual import ResidualNet, Windows
from training.residual_recipe import ResidualConfig
from training.weights.residual_checkpoint import averaged_residual, load_residual

CONFIGS = Path(__file__).parents[1] / "training" / "configs"
DATA = DataConfig(clips=2, windows=6, audio_context=4, start={"wild": 0.5, "broadcast": 0.5})


def config(**changes):
    small = {"width": 32, "heads": 2, "run_windows": 2, "candidates": 3}
    return ResidualConfig(cache="", steps=4, data=DATA, threads=1, **small | changes)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("residual") / "cache")


def test_it_begins_at_the_cosine(cache):
    """Whole figures of val clips are the same with and without a residual that has learned nothing."""
    trainer = make_trainer(config(), load_clips(cache, split="train"))
    found = validate(trainer.matching, trainer.average, load_clips(cache, split="val"), 8)
    cosine, both = ([row for row in found.rows if row["scores"] == name] for name in ("cosine", "both"))
    assert [row | {"scores": ""} for row in cosine] == [row | {"scores": ""} for row in both]


def test_what_it_says_is_added_to_the_cosine(cache):
    """A last layer that always says 2 raises every score by 1 at a scale of a half."""
    net = ResidualNet(200, 64, 2).eval()
    torch.nn.init.zeros_(net.classifier.weight)
    torch.nn.init.constant_(net.classifier.bias, 2.0)
    torch.nn.init.constant_(net.scale, 0.5)
    matching, clip = open_matching(config()), load_clips(cache, split="val")[0]
    cosine = score_clip(clip, match_encoders(matching), max_frames=12)
    both = score_clip(clip, residual_encoders(matching, net), max_frames=12)
    assert np.allclose(both, cosine + 1, atol=1e-4, equal_nan=True)


def test_the_loss_is_the_softmax_over_the_candidates_that_are_there():
    torch.manual_seed(0)
    scores = torch.randn(5, 4)
    every = torch.ones(5, 4, dtype=torch.bool)
    first = torch.tensor([1.0, 0, 0, 0]).expand(5, 4)
    found = candidate_loss(scores, every, target=first)
    assert float(found) == pytest.approx(float(F.cross_entropy(scores, torch.zeros(5).long())))
    fewer = every.clone()
    fewer[:, 3], fewer[0, 0] = False, False
    expected = F.cross_entropy(scores[1:, :3], torch.zeros(4).long())
    assert float(candidate_loss(scores, fewer, target=first)) == pytest.approx(float(expected))


def test_a_run_is_judged_by_its_mean():
    scores = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])  # one run of two windows: means 1 and .5
    there = torch.ones(1, 2, 2, dtype=torch.bool)
    _, curve = run_loss(scores, there, target=torch.tensor([[1.0, 0.0]]), curve=0.5, scale=3.0)
    assert float(curve) == pytest.approx(0.5 * np.log1p(np.exp(-3 * 0.5)))


def test_candidates_are_the_sound_at_their_offsets():
    """Windows that hold their own number: a candidate is as far from its window as its lead says."""
    chosen = config(run_windows=3, candidates=9)
    validity = Validity(torch.ones(2, 6, dtype=torch.bool), torch.ones(2, 14, dtype=torch.bool), 4)
    validity.video[1, :2] = False
    rows, leads = draw_rows(validity, chosen, torch.Generator().manual_seed(3))
    assert rows[1].min() >= 2
    assert (rows[:, 1:] - rows[:, :-1] == 1).all()
    assert (leads[:, 0] == 0).all()
    assert all(len(set(row)) == 9 for row in leads.tolist())

    def numbered(count):
        number = torch.arange(float(count)).expand(2, -1)
        return Windows(number.unsqueeze(2), number.unsqueeze(2), number)

    drawn = choose(numbered(6), numbered(14), validity, rows=rows, leads=leads, neighbour=0.1)
    away = drawn.audio.gate - 4 - drawn.video.gate.unsqueeze(2)
    assert torch.equal(away[drawn.present].long(), leads.unsqueeze(1).expand(-1, 3, -1)[drawn.present])
    assert torch.equal(
        drawn.present,
        (rows.unsqueeze(2) + 4 + leads.unsqueeze(1)).clamp(0, 13)
        == (rows.unsqueeze(2) + 4 + leads.unsqueeze(1)),
    )
    assert torch.equal(drawn.target.argmax(1), torch.zeros(2).long())


@pytest.mark.slow
def test_softmax_then_mtd_and_a_run_that_goes_on_is_the_same(cache, tmp_path):
    wide = config(width=48)
    assert train(replace(wide, steps=2), tmp_path / "teacher", cache=cache)
    student = config(teacher=str(tmp_path / "teacher/last.pt"), checkpoint_every=2)
    assert train(student, tmp_path / "whole", cache=cache)
    whole = load_residual(tmp_path / "whole/last.pt")
    trainer = make_trainer(student, load_clips(cache, split="train"))
    assert trainer.teacher is not None
    origin = provenance_of(cache) | hashes_of(student)
    for step in range(2):
        train_step(trainer, step)
    half = snapshot(trainer, 2, origin)
    again = make_trainer(student, load_clips(cache, split="train"))
    for step in range(restore(again, half, origin), 4):
        row = train_step(again, step)
    assert row["cad"] > 0
    assert row["vr"] > 0
    for key, value in averaged_residual(whole).state_dict().items():
        assert torch.equal(value, again.average.state_dict()[key])
    assert not torch.equal(whole.loss["weights"], torch.ones(25))
    with pytest.raises(ConfigError, match="another matching"):
        restore(again, replace(half, origin=half.origin | {"matching_sha256": ""}), origin)


def test_settings_that_cannot_be_are_refused():
    for wrong in ({"width": 201}, {"candidates": 1}, {"run_windows": 7}, {"heads": 0}):
        with pytest.raises(ConfigError):
            config(**wrong)


@pytest.mark.slow
def test_the_shipped_configurations_run_one_after_another(tmp_path):
    """Each with one step of two clips; the last looks for its teacher where the one before wrote it."""
    cache = make_cache(tmp_path / "cache", clips=8, domains=DOMAINS)
    few = ["--cache", str(cache)]
    for change in ("steps=1", "data.clips=2", "candidates=2", "width=32", "heads=2"):
        few += ["--set", change]
    for name in ("softmax", "teacher", "mtd"):
        teacher = ["--teacher", str(tmp_path / "teacher/last.pt")] * (name == "mtd")
        arguments = [
            "residual",
            str(CONFIGS / f"residual/{name}.toml"),
            "-o",
            str(tmp_path / name),
            *few,
            *teacher,
        ]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
    assert load_residual(tmp_path / "mtd/last.pt").origin["teacher_sha256"]
