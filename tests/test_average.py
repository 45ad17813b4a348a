"""The mean of several students: its weights, what it refuses, and that it is a checkpoint like any other."""

from dataclasses import replace

import pytest
import torch
from synthetic_cache import make_cache
from test_training_resume import SMALL, small_config
from typer.testing import CliRunner

from avsync_cli.errors import ConfigError, ModelError
from training.__main__ import app
from training.loops.loop import LAST
from training.loops.match import train
from training.weights.average import average_checkpoints
from training.weights.match_checkpoint import averaged_net, load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs from one start that saw other batches, and the cache they saw."""
    cache = make_cache(tmp_path_factory.mktemp("cache"))
    folder = tmp_path_factory.mktemp("runs")
    config = small_config(cache, steps=2)
    assert train(config, folder / "start")
    paths = []
    for seed in (1, 2):
        other = replace(config, seed=seed, model=replace(SMALL, dropout=0.1 * seed))
        assert train(other, folder / str(seed), start=folder / "start" / LAST)
        paths.append(folder / str(seed) / LAST)
    return config, paths


def test_every_weight_is_the_mean_and_counters_are_the_first_ones(runs):
    _, paths = runs
    one, two = map(load_checkpoint, paths)
    averaged = average_checkpoints(paths).average
    apart = 0
    for key, value in averaged.items():
        if value.is_floating_point():
            assert torch.allclose(value, torch.lerp(one.average[key], two.average[key], 0.5), atol=1e-7), key
            apart += not torch.equal(one.average[key], two.average[key])
        else:
            assert torch.equal(value, one.average[key]), key
    assert apart > 10  # the runs did differ, or this test says nothing


def test_an_average_is_a_checkpoint_to_use_and_to_start_from(runs, tmp_path):
    config, paths = runs
    output = tmp_path / "new" / "average.pt"
    command = ["average", *map(str, paths), "-o", str(output)]
    assert CliRunner().invoke(app, command).exit_code == 0
    averaged = load_checkpoint(output)
    assert {"averaged_1", "averaged_2", "cache_manifest_sha256"} <= averaged.provenance.keys()
    averaged_net(averaged)
    assert train(replace(config, steps=1, validate_every=1), tmp_path / "on", start=output)
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, ConfigError)
    assert "exists already" in str(refused.exception)


def test_only_what_no_member_has_seen_is_left_out(runs, tmp_path):
    _, paths = runs
    changed = []
    for number, left_out in enumerate((("a", "b"), ("b", "c"))):
        member = load_checkpoint(paths[number])
        data = replace(member.config.data, leave_out=left_out)
        changed.append(tmp_path / f"{number}.pt")
        config = replace(member.config, data=data)
        save_checkpoint(changed[-1], replace(member, config=config, step=number + 1))
    averaged = average_checkpoints(changed)
    assert averaged.config.data.leave_out == ("b",)
    assert averaged.provenance["averaged_2"].endswith("seed 2, 2 of 2 steps")


def test_a_place_that_cannot_be_written_is_one_error(runs, tmp_path):
    _, paths = runs
    (tmp_path / "file").touch()
    command = ["average", *map(str, paths), "-o", str(tmp_path / "file" / "x.pt")]
    assert isinstance(CliRunner().invoke(app, command).exception, ConfigError)


def test_an_average_is_not_resumed(runs, tmp_path):
    _, paths = runs
    run = tmp_path / "run"
    output = run / LAST
    assert CliRunner().invoke(app, ["average", *map(str, paths), "-o", str(output)]).exit_code == 0
    with pytest.raises(ConfigError, match="an average"):
        train(load_checkpoint(output).config, run, resume=True)


def test_what_cannot_be_averaged_is_refused(runs, tmp_path):
    config, paths = runs
    alone = average_checkpoints(paths[:1])
    kept = load_checkpoint(paths[0]).average
    assert all(torch.equal(value, kept[key]) for key, value in alone.average.items())
    with pytest.raises(ModelError, match="absent"):
        average_checkpoints([paths[0], tmp_path / "absent.pt"])
    elsewhere = replace(config, cache=str(make_cache(tmp_path / "cache", frames=60)))
    assert train(elsewhere, tmp_path / "elsewhere", start=paths[0])
    with pytest.raises(ConfigError, match="another cache"):
        average_checkpoints([paths[0], tmp_path / "elsewhere" / LAST])
    wider = replace(config, model=replace(SMALL, lips_width=24))
    assert train(wider, tmp_path / "wider")
    with pytest.raises(ConfigError, match="other sizes"):
        average_checkpoints([paths[0], tmp_path / "wider" / LAST])
