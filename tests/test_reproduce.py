"""The paper in one command: every experiment runs, and what is done is not done again."""

from dataclasses import replace

import pytest
from colour_cache import make_colour_cache
from toy_lrs2 import write_toy
from typer.testing import CliRunner

from training.__main__ import app
from training.data.shards import write_shards
from training.evaluation.evaluate import evaluate
from training.loops import baseline
from training.loops.loop import BEST
from training.reproduction.reproduce import ReproduceOptions, read_experiments

EXPERIMENTS = {"table2": 4, "fig2": 3}  # and their numbers of runs


@pytest.mark.slow
def test_the_paper_from_videos_to_comparison(tmp_path):
    root, output = write_toy(tmp_path / "toy"), tmp_path / "all"
    arguments = [
        "reproduce",
        str(root),
        "-o",
        str(output),
        "--experiments",
        ",".join(EXPERIMENTS),
        "--smoke",
        "--jobs",
        "1",
    ]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    written = {path: path.stat().st_mtime_ns for path in output.glob("runs/*/metrics.json")}
    assert len(written) == 1 + sum(EXPERIMENTS.values())  # and the teacher's
    text = (output / "comparison" / "comparison.md").read_text()
    assert all(f"| {label} | Table 2 |" in text for label in ("BCE", "NMTD w/o VR", "NMTD w/o CAD", "NMTD"))
    assert "| SyncNet | Fig. 2 |" in text
    assert "Published figures" in text
    assert "| Fig. 2 | SyncNet | difference |" in text

    # A run whose figures are missing is measured again from its checkpoint; nothing else is touched.
    removed = output / "runs" / "table2-bce" / "metrics.json"
    removed.unlink()
    best = removed.with_name("best.pt").stat().st_mtime_ns
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0, again.output
    for path, time in written.items():
        assert (path.stat().st_mtime_ns == time) == (path != removed), path
    assert removed.with_name("best.pt").stat().st_mtime_ns == best

    # Without --smoke it would be another teacher, and with other lists other data.
    real = CliRunner().invoke(app, [word for word in arguments if word != "--smoke"])
    assert "vocalist: holds a run that differs in network, data, " in str(real.exception)
    (root / "val.txt").write_text((root / "val.txt").read_text() + "\n")
    other = CliRunner().invoke(app, arguments)
    assert "its data were made by another val.txt" in str(other.exception)


def test_an_unknown_experiment_is_refused(tmp_path):
    result = CliRunner().invoke(
        app, ["reproduce", str(tmp_path), "-o", str(tmp_path), "--experiments", "fig5"]
    )
    assert "'fig5': not one of table1" in str(result.exception)


def test_a_smoke_run_has_no_use_for_weights(tmp_path):
    words = ["reproduce", str(tmp_path), "-o", str(tmp_path / "all"), "--smoke", "--vocalist", "x.pth"]
    result = CliRunner().invoke(app, words)
    assert "--vocalist: has no use with --smoke" in str(result.exception)
    assert not (tmp_path / "all").exists()


def test_the_baselines_see_what_is_prepared(tmp_path):
    """Crops in colour, from shards."""
    cache = make_colour_cache(tmp_path / "cache", clips=9)
    write_shards(cache, tmp_path / "shards", clips_per_shard=4)
    options = ReproduceOptions(smoke=True)
    recipes = read_experiments(["fig2"], tmp_path / "shards", tmp_path, vocalist=None, options=options)
    for config in recipes[1:]:
        assert baseline.train(replace(config, max_steps=1), tmp_path / config.name)
        best = tmp_path / config.name / BEST
        limits = {"max_frames": 8, "clips": 1}
        result = evaluate(best, ["protocol"], cache=cache, corpus=None, split="val", jobs=1, **limits)
        assert result["label"] == config.label
    assert len(recipes) == 4


def test_several_seeds_are_runs_of_one_row_and_one_teacher(tmp_path):
    options = ReproduceOptions(seeds=3, as_published=True)
    recipes = read_experiments(["table2", "fig2"], tmp_path, tmp_path, vocalist=None, options=options)
    assert [recipe.name for recipe in recipes].count("vocalist") == 1
    ours = [recipe for recipe in recipes if recipe.label == "NMTD w/o VR"]
    assert [(recipe.name, recipe.seed) for recipe in ours] == [
        ("table2-no-vr", 0), ("table2-no-vr-seed1", 1), ("table2-no-vr-seed2", 2)
    ]  # fmt: skip
    assert len({recipe.name for recipe in recipes}) == len(recipes)
    assert all(recipe.teacher.weights == str(tmp_path / "vocalist" / "best.pt") for recipe in ours)
    assert all(recipe.data.mel == "chunk" for recipe in ours)
    full = ReproduceOptions(full_teacher=True)
    teacher, *rest = read_experiments(["table2"], tmp_path, tmp_path, vocalist=None, options=full)
    assert (teacher.name, teacher.data.epochs) == ("vocalist-600", 600)
    assert {r.teacher.weights for r in rest if r.teacher} == {str(tmp_path / "vocalist-600" / "best.pt")}
