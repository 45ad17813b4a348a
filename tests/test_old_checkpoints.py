"""Checkpoints and a student that an earlier avsync wrote still mean the same: they give the scores it gave by
them, can be started from, and training goes on from them. See golden/make_checkpoints.py."""

import gzip
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_cache import make_cache

from avsync_cli.errors import ConfigError, ModelError
from avsync_cli.mel import MelTrack
from export.student import export_student
from export.trained import open_trained
from training.data.cache import CachedClip
from training.data.clips import LoadedClip, load_clips
from training.data.provenance import provenance_of
from training.evaluation.candidates import open_judged
from training.evaluation.score_clips import score_clip
from training.loops import baseline, distill, match, steps
from training.loops.loop import Progressed
from training.networks.compact import EDGE, CompactNet
from training.networks.presets import make_network
from training.processes import Processes
from training.recipe import NetworkConfig
from training.weights.baseline_checkpoint import BaselineCheckpoint, load_baseline
from training.weights.files import read_weights_file, write_whole
from training.weights.identify import BareWeights, open_weights
from training.weights.loading import load_exactly, load_fitting
from training.weights.match_checkpoint import Checkpoint, load_checkpoint
from training.weights.recipe_checkpoint import RecipeCheckpoint, load_recipe_checkpoint

GOLDEN = Path(__file__).parent / "golden" / "checkpoints"
KINDS = {
    "match.pt": Checkpoint,
    "match_edge.pt": Checkpoint,
    "recipe_last.pt": RecipeCheckpoint,
    "recipe_best.pt": RecipeCheckpoint,
    "baseline.pt": BaselineCheckpoint,
    "authors.pth": BareWeights,
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """The files as they were written."""
    folder = tmp_path_factory.mktemp("old")
    for packed in GOLDEN.rglob("*.gz"):
        path = folder / packed.relative_to(GOLDEN).with_suffix("")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.decompress(packed.read_bytes()))
    (folder / "student" / "model.json").write_bytes((GOLDEN / "student" / "model.json").read_bytes())
    return folder


@pytest.fixture(scope="module")
def recorded():
    """The clip that was scored, and the scores."""
    with np.load(GOLDEN / "scores.npz") as file:
        parts = dict(file)
    entry = CachedClip("a.mp4", "val", "a", "wild", False, 0.0, len(parts["crops"]))
    ticks = (int(parts[name]) for name in ("origin_tick", "first_tick", "ticks"))
    mel = MelTrack(parts["mel"], *ticks)
    return LoadedClip(entry, parts["crops"], parts["lips"], int(parts["video_tick"]), mel), parts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where "cache" is what the old configurations call their data."""
    folder = tmp_path_factory.mktemp("run")
    make_cache(folder / "cache", clips=6, frames=40)
    return folder


@pytest.mark.parametrize("name", [*KINDS, "student"])
def test_the_scores_are_those_of_then(old, recorded, name):
    clip, parts = recorded
    judged = open_judged(old / name, network="mtdvocalist" if name == "authors.pth" else None, threads=1)
    expected = parts[f"scores/{name}"]
    np.testing.assert_allclose(score_clip(clip, judged.encoders), expected, rtol=2e-4, atol=2e-5)
    assert np.nanstd(expected) > 1e-3  # or it would say nothing


@pytest.mark.parametrize("name", KINDS)
def test_a_file_says_itself_what_it_holds(old, name):
    assert type(open_weights(old / name)) is KINDS[name]


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind is not BareWeights])
def test_another_version_is_refused(old, tmp_path, name):
    write_whole(tmp_path / name, dict(read_weights_file(old / name)) | {"version": 2})
    with pytest.raises(ModelError, match=rf"{name}: not an avsync-\w+-checkpoint of version 1"):
        open_weights(tmp_path / name)


def test_the_matching_goes_on(old, folder, monkeypatch):
    monkeypatch.chdir(folder)
    checkpoint = load_checkpoint(old / "match.pt")
    trainer = match.make_trainer(checkpoint.config, load_clips(folder / "cache", split="train"))
    assert match.restore(trainer, checkpoint, checkpoint.provenance) == 3
    assert math.isfinite(match.train_step(trainer, 3)["total"])
    assert all(int(state["step"]) == 4 for state in trainer.optimiser.state.values())
    with pytest.raises(ConfigError, match="another cache"):
        match.restore(trainer, checkpoint, provenance_of(folder / "cache"))


def test_the_matching_starts_from_an_average(old, folder, monkeypatch):
    monkeypatch.chdir(folder)
    checkpoint = load_checkpoint(old / "match_edge.pt")
    trainer = match.make_trainer(
        replace(checkpoint.config, seed=1), load_clips(folder / "cache", split="train")
    )
    match.start_from(trainer, checkpoint)
    for key, value in trainer.net.state_dict().items():
        assert torch.equal(value, checkpoint.average[key]), key


def test_a_recipe_goes_on(old, folder, monkeypatch):
    monkeypatch.chdir(folder)
    checkpoint = load_recipe_checkpoint(old / "recipe_last.pt")
    trainer, _ = distill.make_trainer(checkpoint.recipe, CPU, Processes())
    done, _ = distill.restore(trainer, checkpoint, checkpoint.origin)
    assert done == Progressed(3, 0.25)
    assert math.isfinite(steps.take_step(trainer, 3)["total"])
    assert all(int(state["step"]) == 4 for state in trainer.optimiser.state.values())


def test_a_baseline_goes_on(old, folder, monkeypatch):
    monkeypatch.chdir(folder)
    checkpoint = load_baseline(old / "baseline.pt")
    trainer = baseline.make_trainer(checkpoint.config)
    assert baseline.restore(trainer, checkpoint, checkpoint.origin) == (3, 0.25)
    assert math.isfinite(baseline.take_step(trainer, 3)["total"])
    assert all(int(state["step"]) == 4 for state in trainer.optimiser.state.values())


def test_recipes_start_from_a_matching_and_from_the_authors_weights(old):
    started = load_fitting(CompactNet(EDGE), old / "match_edge.pt")
    assert {"video_encoder.trunk", "audio_encoder.net"} <= set(started.taken)
    config = NetworkConfig("mtdvocalist")
    network = make_network(config)
    load_exactly(network, old / "authors.pth", config)
    weights = read_weights_file(old / "authors.pth")["state_dict"]
    for key, value in network.state_dict().items():
        assert torch.equal(value, weights[key.removeprefix("net.")].to(value.dtype)), key


def test_the_export_writes_the_student_of_then(old, recorded, tmp_path):
    clip, parts = recorded
    export_student(open_trained(old / "match.pt"), tmp_path / "student")
    judged = open_judged(tmp_path / "student", network=None, threads=1)
    np.testing.assert_allclose(score_clip(clip, judged.encoders), parts["scores/student"], rtol=2e-4)
