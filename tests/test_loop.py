"""The loop of every training, on one that only counts: what is written when, and what a stop leaves."""

import csv
import json
import signal
from dataclasses import replace

import pytest

from avsync_cli.errors import ConfigError
from training.config import MatchConfig
from training.loops.loop import BEST, LAST, Loop, Progressed, Validation, run_loop, steps_between
from training.recipe import ValidationConfig

STEPS = 5


def counting_loop(*, stop_in="", at=0, figures=(), **changes):
    """A loop whose checkpoints are the steps done; a signal comes in the part `stop_in` at step `at`."""
    done = {"step": 0, "signals": 0}

    def come_to(part, step):
        if (part, step) == (stop_in, at) and not done["signals"]:
            done["signals"] += 1  # a second one would end the process
            signal.raise_signal(signal.SIGTERM)

    def take_step(step):
        assert step == done["step"], "each step is taken once, in its turn"
        done["step"] += 1
        come_to("step", done["step"])
        return {"total": float(step), "epoch": step // 2, "seconds": 0.0}

    def validate(step):
        assert step == done["step"]
        come_to("validation", done["step"])
        figure = figures[done["step"] - 1] if figures else None
        return Validation([{"found": done["step"]}], "found", figure)

    def save(path, progressed, origin, *, to_go_on):
        kept = {"step": progressed.step, "best": progressed.best, "origin": origin, "to_go_on": to_go_on}
        path.write_text(json.dumps(kept))
        come_to("checkpoint", done["step"])

    def restore(path):
        kept = json.loads(path.read_text())
        done["step"] = kept["step"]
        return Progressed(kept["step"], kept["best"]), kept["origin"]

    config = MatchConfig("cache", STEPS, log_every=1, checkpoint_every=2)
    begun = {"start": lambda: {"started": "from nothing"}, "restore": restore}
    loop = Loop("count", config, STEPS, 1, take_step, validate, save=save, board=False, **begun)
    return replace(loop, **changes)


def column(run, table, name):
    with (run / table).open() as file:
        return [row[name] for row in csv.DictReader(file)]


def test_a_run_leaves_its_tables_its_configuration_and_its_checkpoints(tmp_path):
    assert run_loop(counting_loop(figures=(0.1, 0.4, 0.3, 0.4, 0.2)), tmp_path, resume=False)
    assert column(tmp_path, "log.csv", "step") == column(tmp_path, "val.csv", "found") == list("12345")
    assert column(tmp_path, "val.csv", "epoch") == list("00112")
    written = json.loads((tmp_path / "config.json").read_text())
    assert (written["steps"], written["origin"]) == (STEPS, {"started": "from nothing"})
    best, last = (json.loads((tmp_path / name).read_text()) for name in (BEST, LAST))
    assert (best["step"], best["best"], best["to_go_on"]) == (2, 0.4, False)
    assert (last["step"], last["best"], last["to_go_on"]) == (5, 0.4, True)
    with pytest.raises(ConfigError, match="already holds a run"):
        run_loop(counting_loop(), tmp_path, resume=False)


@pytest.mark.parametrize("part", ["step", "validation", "checkpoint"])
@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_signal_at_any_moment_loses_no_step(tmp_path, part, at):
    is_due = part != "checkpoint" or at % 2 == 0
    assert run_loop(counting_loop(stop_in=part, at=at), tmp_path, resume=False) is not is_due
    assert json.loads((tmp_path / LAST).read_text())["step"] == (at if is_due else STEPS)
    assert run_loop(counting_loop(), tmp_path, resume=True)
    assert column(tmp_path, "log.csv", "step") == column(tmp_path, "val.csv", "step") == list("12345")


def test_a_signal_in_the_last_step_finds_it_done(tmp_path):
    assert run_loop(counting_loop(stop_in="checkpoint", at=STEPS), tmp_path, resume=False)


def test_what_was_not_yet_saved_is_dropped_from_the_tables(tmp_path):
    with pytest.raises(RuntimeError, match="no more"):
        run_loop(failing_after(counting_loop(), 3), tmp_path, resume=False)
    assert json.loads((tmp_path / LAST).read_text())["step"] == 2
    assert run_loop(counting_loop(), tmp_path, resume=True)
    assert column(tmp_path, "log.csv", "step") == list("12345")


def failing_after(loop, steps):
    def take_step(step):
        if step >= steps:
            raise RuntimeError("no more")
        return loop.take_step(step)

    return replace(loop, take_step=take_step)


def test_no_weights_are_chosen_without_a_figure_and_nothing_is_validated_unasked(tmp_path):
    assert run_loop(counting_loop(validate_every=0), tmp_path, resume=False)
    assert not (tmp_path / BEST).exists()
    assert column(tmp_path, "val.csv", "step") == []


def test_validations_are_counted_in_steps_or_in_epochs():
    assert steps_between(ValidationConfig(every_steps=7), 10) == 7
    assert steps_between(ValidationConfig(every_epochs=3), 10) == 30
    assert steps_between(ValidationConfig(), 10) == 10
