"""Recipes: what a TOML may say, and the rates that it stands for."""

from pathlib import Path

import pytest
from recipes import PUBLISHED, STUDENT, TEACHER, make_recipe

from avsync_cli.errors import ConfigError
from training.config import MatchConfig, as_table, from_table
from training.loops.optimise import rate_by_epochs
from training.losses.distillation import KD, MTD, NMTD, RKD, FitNets, MiniLM
from training.losses.methods import make_method
from training.networks.presets import make_network
from training.recipe import MethodConfig, Recipe, RecipeOptimiser


def test_a_recipe_survives_its_table():
    recipe = make_recipe(
        Path("cache"),
        teacher=TEACHER,
        method={"name": "NMTD", "layers": ["F4", "AV1"], "cad": [1.0, 0.5], "vr": 0.0},
        data={"negatives": "clip", "domains": {"wild": 1.0}, "augment": {"flip": 0.5}},
        validation={"observe": ["MTD"]},
    )
    assert from_table(Recipe, as_table(recipe), where="test") == recipe


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sped": 1}, "unknown key 'sped'"),
        ({"method": {"name": "KDD"}}, "'KDD' is not one of"),
        ({"method": {"name": "KD"}}, "method KD: needs a teacher"),
        (
            {"method": {"name": "KD", "layers": "all"}, "teacher": TEACHER},
            "method KD: has no use for 'layers'",
        ),
        ({"method": {"name": "BCE"}, "teacher": TEACHER}, "no use for a teacher"),
        ({"method": {"name": "MTD", "weighting": "AW-13D"}, "teacher": TEACHER}, "AW-13D: needs clip_norm"),
        ({"method": {"name": "MTD", "weighting": "UW-26D"}, "teacher": TEACHER}, "'UW-26D' is not one of"),
        ({"optimiser": {"schedule": "cosine", "decay": 0.5}}, "cosine: has no use for 'decay'"),
        ({"optimiser": {"final_rate": 0.5}}, "step: has no use for 'final_rate'"),
        ({"data": {"batch": 8, "micro_batches": 3}}, "the first two divide"),
        ({"data": {"negatives": 0}}, "negatives is 1 frame or more"),
        ({"data": {"negatives": "far"}}, "negatives: must be int"),
        ({"data": {"epoch_pairs": None, "domains": {"a": 1.0}}}, "domains need epoch_pairs"),
        ({"data": {"epoch_pairs": 0}}, "epoch_pairs is 1 or more"),
        ({"seed": -1}, "seed is 0 or more, not -1"),
        ({"validation": {"seed": -1}}, "seed is 0 or more"),
        ({"validation": {"every_steps": 0}}, "every_steps is 1 or more"),
        ({"threads": 0}, "threads is 1 or more"),
        ({"max_steps": 0}, "max_steps is 1 or more"),
        ({"log_every": 0}, "log_every is 1 or more"),
        ({"optimiser": {"decay_every": 0}}, "decay_every is more than 0"),
        ({"optimiser": {"learning_rate": 0}}, "learning_rate is more than 0"),
        ({"optimiser": {"learning_rate": float("nan")}}, "learning_rate is more than 0, not nan"),
        ({"optimiser": {"warm_up": -1}}, "warm_up is 0 or more"),
        ({"optimiser": {"ema": 1.5}}, "ema is 0 or more and less than 1"),
        ({"method": {"name": "KD", "temperature": 0}, "teacher": TEACHER}, "temperature is more than 0"),
        ({"validation": {"every_steps": 5, "every_epochs": 1}}, "exclude each other"),
        ({"validation": {"observe": ["MTD"]}}, "observe MTD: needs a teacher"),
        ({"validation": {"observe": ["KD"]}, "teacher": TEACHER}, "'KD' is not one of"),
    ],
)
def test_what_a_recipe_has_no_use_for_or_cannot_be_is_refused(changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        make_recipe(Path("cache"), **changes)


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        ({"name": "BCE"}, NMTD),
        ({"name": "KD", "temperature": 2}, KD),
        ({"name": "RKD", "distance": 1, "angle": 2}, RKD),
        ({"name": "MiniLM", "layers": ["AV4", "VA4", "F4"]}, MiniLM),
        ({"name": "FitNets", "weight": 3}, FitNets),
        ({"name": "NMTD", "layers": "F2"}, NMTD),
        ({"name": "Last-MTD"}, NMTD),
        ({"name": "MTD", "weighting": "UW-13D"}, MTD),
    ],
)
def test_every_method_is_made_as_configured(table, kind):
    config = from_table(MethodConfig, table, where="test")
    method = make_method(config, student_width=16, teacher_width=24)
    assert type(method) is kind
    for name in ("temperature", "distance", "angle", "weight", "weighting"):
        if name in table:
            assert getattr(method, name) == table[name]
    layers = {"BCE": (), "Last-MTD": ("F4",), "NMTD": ("F2",), "MiniLM": ("AV4", "VA4", "F4")}
    assert getattr(method, "layers", None) == layers.get(table["name"], getattr(method, "layers", None))


def test_relations_are_compared_as_configured():
    table = {"name": "NMTD", "direction": "student_teacher", "clamp_va": True, "bce": 0.5}
    method = make_method(from_table(MethodConfig, table, where="t"), student_width=16, teacher_width=24)
    assert (method.options.direction, method.options.clamp_va) == ("student_teacher", True)
    assert method.bce_weight == 0.5


def test_the_published_rate_warms_up_over_10_epochs_and_falls_every_20():
    config = RecipeOptimiser()
    rates = [rate_by_epochs(step, 100, 80, config) for step in range(8000)]
    assert rates[0] == pytest.approx(5e-5 / 1000)
    assert rates[499] == pytest.approx(2.5e-5)
    assert rates[999] == rates[1000] == rates[2999] == 5e-5
    assert rates[3000] == rates[4999] == pytest.approx(4e-5)
    assert rates[5000] == pytest.approx(3.2e-5)
    assert rates[-1] == pytest.approx(5e-5 * 0.8**3)


def test_a_cosine_ends_at_its_final_rate():
    config = RecipeOptimiser(schedule="cosine", learning_rate=1.0, warm_up=1.0, final_rate=0.1)
    rates = [rate_by_epochs(step, 10, 11, config) for step in range(110)]
    assert rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_sizes_that_do_not_exist_are_refused():
    for dims, complaint in (
        ({"widht": 16}, "unknown key 'widht'"),
        ({"width": 15}, "the last stage has 16 channels, not 15"),
        ({"channels": [4, 16]}, "must be a list of 5"),
        ({"channels": [4, 4, 0, 8, 16]}, "channels is 1 or more"),
        ({"heads": 0}, "heads is 1 or more"),
        ({"heads": -2}, "heads is 1 or more"),
        ({"layers": 0}, "layers is 1 or more"),
    ):
        recipe = make_recipe(Path("c"), network=PUBLISHED | {"dims": PUBLISHED["dims"] | dims})
        with pytest.raises(ConfigError, match=complaint):
            make_network(recipe.network)


@pytest.mark.parametrize(
    ("dims", "complaint"),
    [
        ({"width": 0}, "width is 1 or more"),
        ({"heads": 0}, "heads is 1 or more"),
        ({"layers": 0}, "layers is 1 or more"),
        ({"audio_widths": [8, 8, 0, 8]}, "audio_widths is 1 or more"),
        ({"sizes": {"video_widths": [8, 0, 8]}}, "video_widths is 1 or more"),
        ({"sizes": {"lips_width": 0}}, "lips_width is 1 or more"),
        ({"sizes": {"video_blocks": [1, 1]}}, "three each"),
    ],
)
def test_sizes_of_compact_networks_that_do_not_exist_are_refused(dims, complaint):
    network = make_recipe(Path("c"), network=STUDENT | {"dims": dims}).network
    with pytest.raises(ConfigError, match=f"dims of mtdvocalist-edge.*{complaint}"):
        make_network(network)


@pytest.mark.parametrize("key", ["steps", "end_at", "threads", "log_every"])
def test_counts_of_a_matching_are_one_or_more(key):
    with pytest.raises(ConfigError, match=f"{key} is 1 or more"):
        from_table(MatchConfig, {"cache": "cache", "steps": 5} | {key: 0}, where="test")


def test_a_matching_validates_every_so_many_steps_or_never():
    table = {"cache": "cache", "steps": 5}
    assert from_table(MatchConfig, table | {"validate_every": 0}, where="test").validate_every == 0
    with pytest.raises(ConfigError, match="validate_every is 0 or more"):
        from_table(MatchConfig, table | {"validate_every": -1}, where="test")
