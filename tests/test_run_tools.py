"""What is done with runs: several seeds, other trackers, other files of weights, and cards."""

import json
import sys
from pathlib import Path

import pytest
import torch
from colour_cache import make_colour_cache
from recipes import TEACHER, make_recipe, save_teacher
from typer.testing import CliRunner

from avsync_cli.errors import ConfigError, ModelError
from training.__main__ import app
from training.config import from_table
from training.data.cache import sha256_of
from training.loops.trackers import open_tracker
from training.networks.presets import make_network
from training.recipe import NetworkConfig
from training.weights.files import read_weights_file, write_safetensors
from training.weights.identify import BareWeights, open_weights
from training.weights.loading import load_exactly

SYNCNET = Path(__file__).parents[1] / "training" / "configs" / "fig2" / "syncnet.toml"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_colour_cache(tmp_path_factory.mktemp("cache"), clips=9)


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_several_seeds_by_one_command_and_a_card_of_one(cache, tmp_path):
    words = ["baseline", SYNCNET, "-o", tmp_path / "runs", "--cache", cache, "--smoke"]
    run(*words, "--seeds", 2, "--seed", 5, "--set", "optimiser.learning_rate=1e-4")
    folders = sorted((tmp_path / "runs").iterdir())
    assert [folder.name for folder in folders] == ["seed-5", "seed-6"]
    configs = [json.loads((folder / "config.json").read_text()) for folder in folders]
    assert [config["seed"] for config in configs] == [5, 6]
    assert {config["optimiser"]["learning_rate"] for config in configs} == {1e-4}
    before = (folders[0] / "best.pt").stat().st_mtime_ns
    (folders[1] / "last.pt").unlink()  # as if it had not begun
    run(*words, "--seeds", 2, "--seed", 5, "--resume", "--set", "optimiser.learning_rate=1e-4")
    assert (folders[0] / "best.pt").stat().st_mtime_ns == before
    assert (folders[1] / "last.pt").exists()

    limits = ["--max-frames", 12, "--clips", 1, "--cache", cache, "-o", folders[0] / "metrics.json"]
    run("evaluate", "--measures", "protocol", "--student", folders[0] / "best.pt", *limits)
    run("card", folders[0])
    card = (folders[0] / "card.md").read_text()
    origin = configs[0]["origin"]
    assert (
        f"SHA-256 of the data's manifest, or the index of their shards: `{origin['cache_manifest_sha256']}`"
        in card
    )
    assert f"SHA-256 of `best.pt`: `{sha256_of(folders[0] / 'best.pt')}`" in card
    assert "| all | 1 |" in card
    assert "- experiment: Fig. 2 SyncNet" in card
    assert "$ python -m training" in card
    run("card", folders[1], "-o", tmp_path / "b.md")
    assert "Not measured by the protocol" in (tmp_path / "b.md").read_text()
    with pytest.raises(ConfigError, match=r"has no config\.json; is it a run folder"):
        run("card", tmp_path)


WANDB = """
import json, pathlib
class Run:
    def __init__(self, place): self.place = place
    def log(self, values, step): self.write([step, values])
    def finish(self): self.write("finished")
    def write(self, what):
        with self.place.open("a") as file: file.write(json.dumps(what) + "\\n")
def init(**options):
    run = Run(pathlib.Path(options["dir"]) / "told.jsonl")
    run.write([options["name"], options["id"]])
    return run
"""


def test_a_tracker_is_told_the_figures_where_it_is_installed(cache, tmp_path, monkeypatch):
    words = ["baseline", SYNCNET, "-o", tmp_path / "run", "--cache", cache, "--smoke", "--track"]
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match="mlflow is not installed"):
        run(*words, "mlflow")
    assert not (tmp_path / "run" / "last.pt").exists()
    (tmp_path / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(str(tmp_path))
    run(*words, "wandb")
    told = [json.loads(line) for line in (tmp_path / "run" / "told.jsonl").read_text().splitlines()]
    own_id = (tmp_path / "run" / "wandb.id").read_text()
    assert (told[0], told[-1]) == ([f"{tmp_path.name}/run", own_id], "finished")
    steps = [row[0] for row in told[1:-1] if "train/total" in row[1]]
    assert steps == [1, 2]
    assert any("val/f1" in row[1] for row in told[1:-1])
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    open_tracker("wandb", tmp_path / "run", {}, step=2)
    assert (tmp_path / "run" / "wandb.id").read_text() == own_id
    open_tracker("wandb", tmp_path / "run", {}, step=0)
    assert (tmp_path / "run" / "wandb.id").read_text() != own_id  # another run is not taken for it


def test_safetensors_take_a_checkpoint_s_place(tmp_path):
    source = save_teacher(tmp_path / "best.pt")
    target = tmp_path / "weights" / "teacher.safetensors"
    run("convert", source, "-o", target)
    before, after = open_weights(source), open_weights(target)
    assert (before.recipe, before.step, before.origin) == (after.recipe, after.step, after.origin)
    assert before.network.keys() == after.network.keys()
    assert all(torch.equal(value, after.network[key]) for key, value in before.network.items())
    config = from_table(NetworkConfig, TEACHER, where="test")
    network = make_network(config)
    load_exactly(network, target, config)
    assert all(torch.equal(value, before.network[key]) for key, value in network.state_dict().items())
    run("convert", target, "-o", tmp_path / "again.pt")
    assert open_weights(tmp_path / "again.pt").recipe == make_recipe(Path("cache"), network=TEACHER)
    with pytest.raises(ConfigError, match="exists already"):
        run("convert", source, "-o", target)
    with pytest.raises(ConfigError, match=r"must end with \.safetensors"):
        run("convert", source, "-o", tmp_path / "a.bin")


def test_bare_weights_as_safetensors(tmp_path):
    weights = {"module.fc.weight": torch.arange(6.0).view(2, 3)}
    write_safetensors(tmp_path / "a.safetensors", weights, {})
    held = open_weights(tmp_path / "a.safetensors")
    assert isinstance(held, BareWeights)
    assert torch.equal(held.weights["fc.weight"], weights["module.fc.weight"])
    torch.save({"state_dict": weights}, tmp_path / "a.pth")
    run("convert", tmp_path / "a.pth", "-o", tmp_path / "b.safetensors")
    assert read_weights_file(tmp_path / "b.safetensors").keys() == weights.keys()
    (tmp_path / "c.safetensors").write_bytes(b"nothing")
    for name, words in (("c", "not weights that can be read"), ("d", "No such file")):
        with pytest.raises(ModelError, match=words):
            read_weights_file(tmp_path / f"{name}.safetensors")
