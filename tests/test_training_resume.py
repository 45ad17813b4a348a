"""Training: an interrupted run goes on to the same numbers, and what does not fit is refused."""

import csv
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from synthetic_cache import make_cache

from avsync_cli.errors import ConfigError, ModelError
from training.config import (
    DataConfig,
    MatchConfig,
    ModelConfig,
    OptimiserConfig,
    as_table,
    from_table,
    read_config,
)
from training.data.clips import load_clips
from training.loops.loop import LAST
from training.loops.match import make_trainer, provenance_of, restore, snapshot, train, train_step
from training.weights.match_checkpoint import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[1]
SMALL = ModelConfig(
    embedding=16, video_widths=(8, 8, 8), lips_width=16, audio_widths=(8, 8, 8, 8), dropout=0.1
)


def small_config(cache, steps=4):
    return MatchConfig(
        cache=str(cache),
        steps=steps,
        threads=1,
        log_every=1,
        checkpoint_every=2,
        validate_every=steps,
        data=DataConfig(clips=3, windows=10, start={"broadcast": 0.5, "wild": 0.5}),
        model=SMALL,
        optimiser=OptimiserConfig(warm_up=2),
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache"))


def losses(run):
    with (run / "log.csv").open() as file:
        return [(row["step"], row["total"], row["norm"]) for row in csv.DictReader(file)]


def test_resumed_run_equals_uninterrupted(cache, tmp_path):
    config = small_config(cache)
    assert train(config, tmp_path / "whole")
    clips = load_clips(cache, split="train")
    first = make_trainer(config, clips)
    rows = [train_step(first, step) for step in range(2)]
    (tmp_path / "cut").mkdir()
    save_checkpoint(tmp_path / "cut" / LAST, snapshot(first, 2, provenance_of(cache)))
    assert len(rows) == 2
    assert train(config, tmp_path / "cut", resume=True)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")[2:]
    whole, cut = (load_checkpoint(tmp_path / run / LAST) for run in ("whole", "cut"))
    for name, value in whole.average.items():
        assert torch.equal(value, cut.average[name]), name
    assert (tmp_path / "whole" / "val.csv").read_text().count("\n") > 2


def test_another_configuration_is_refused(cache, tmp_path):
    config = small_config(cache)
    train(config, tmp_path)
    with pytest.raises(ConfigError, match="already holds a run"):
        train(config, tmp_path)
    with pytest.raises(ConfigError, match="another configuration"):
        train(replace(config, seed=5), tmp_path, resume=True)


def test_a_trainer_is_restored_whole(cache):
    config = small_config(cache)
    clips = load_clips(cache, split="train")
    trainer = make_trainer(config, clips)
    train_step(trainer, 0)
    origin = {"cache_manifest_sha256": "a", "commit": "b"}
    copy = make_trainer(replace(config), clips)
    assert restore(copy, snapshot(trainer, 1, origin), origin) == 1
    assert train_step(copy, 1)["total"] == train_step(trainer, 1)["total"]


def test_configuration_survives_its_table_and_refuses_unknown_keys(cache):
    config = small_config(cache)
    assert from_table(MatchConfig, as_table(config), where="test") == config
    with pytest.raises(ConfigError, match="unknown key 'sped'"):
        from_table(MatchConfig, {"cache": "x", "steps": 1, "data": {"sped": 1}}, where="test")
    with pytest.raises(ConfigError, match="must be int"):
        from_table(MatchConfig, {"cache": "x", "steps": True}, where="test")


@pytest.mark.parametrize("path", sorted((ROOT / "training" / "configs").glob("match*.toml")))
def test_configurations_that_are_shipped_can_be_read(path):
    assert read_config(path).steps > 0


def test_damaged_checkpoint_is_refused(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match="not weights that can be read"):
        load_checkpoint(tmp_path / "x.pt")


TINY = """
cache = "{cache}"
steps = 30
threads = 1
log_every = 1
checkpoint_every = 1000
validate_every = 0
[data]
clips = 2
windows = 8
[data.start]
wild = 1.0
[model]
embedding = 8
video_widths = [8, 8, 8]
audio_widths = [8, 8, 8, 8]
lips_width = 8
"""


def start(config, run, *options):
    command = [sys.executable, "-m", "training", "match", str(config), "-o", str(run), *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.repeats
def test_a_terminated_run_saves_itself_and_goes_on(cache, tmp_path):
    config, run = tmp_path / "tiny.toml", tmp_path / "run"
    config.write_text(TINY.format(cache=cache))
    process = start(config, run)
    log = run / "log.csv"
    while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > 1):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=900)
    assert process.returncode == 130, told
    assert "--resume goes on" in told
    done = load_checkpoint(run / LAST).step
    assert 0 < done < 30
    again = start(config, run, "--resume")
    _, told = again.communicate(timeout=900)
    assert again.returncode == 0, told
    assert [int(step) for step, _, _ in losses(run)] == list(range(1, 31))


def test_help_does_not_wait_for_torch():
    code = "import sys, training.__main__, export.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_an_error_is_one_line_and_its_exit_code(tmp_path):
    (tmp_path / "bad.toml").write_text("sped = 1\n")
    process = start(tmp_path / "bad.toml", tmp_path / "run")
    _, told = process.communicate(timeout=900)
    assert process.returncode == 2
    assert told.strip().endswith("unknown key 'sped'")
    assert told.count("\n") == 1
