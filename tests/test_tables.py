"""Recipes that build on others, and single keys that are changed on the command line."""

import pytest

from avsync_cli.errors import ConfigError
from training.recipe import read_recipe
from training.tables import parse_value, read_table


@pytest.fixture
def recipes(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "all.toml").write_text(
        'cache = "c"\n[network]\npreset = "mtdvocalist"\n[data]\nbatch = 4\n'
    )
    path = tmp_path / "own.toml"
    path.write_text('base = "base/all.toml"\nname = "own"\n[method]\nname = "BCE"\n[data]\nepochs = 3\n')
    return path


def test_a_recipe_takes_over_what_it_does_not_say(recipes):
    recipe = read_recipe(recipes)
    assert (recipe.cache, recipe.network.preset, recipe.data.batch, recipe.data.epochs) == (
        "c", "mtdvocalist", 4, 3
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 1e-3),
        ("true", True),
        ('"a b"', "a b"),
        ("cosine", "cosine"),
        ('["AV1", "F4"]', ["AV1", "F4"]),
        ("{a = 1}", {"a": 1}),
        ("1\nname = 2", "1\nname = 2"),
        ("", ""),
    ],
)
def test_values_are_written_as_in_toml_or_as_a_word(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_changes_come_last_and_may_lead_into_tables(recipes):
    changes = ["data.batch=8", "optimiser.schedule=cosine", "seed = 7", "network.dims.width=16"]
    recipe = read_recipe(recipes, changes)
    assert (recipe.data.batch, recipe.data.epochs, recipe.seed) == (8, 3, 7)
    assert (recipe.optimiser.schedule, recipe.network.dims) == ("cosine", {"width": 16})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("batch", "--set batch: must be KEY=VALUE"),
        ("=3", "must be KEY=VALUE"),
        ("data.=3", "must be KEY=VALUE"),
        ("data.size=3", "unknown key 'size'"),
        ("data.batch=many", "data: batch: must be int"),
        ("method.weight=2", "has no use for 'weight'"),
    ],
)
def test_a_bad_change_is_refused(recipes, change, words):
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        read_recipe(recipes, [change])


def test_a_base_that_is_no_good_is_refused(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("base = 3\n")
    with pytest.raises(ConfigError, match=r"a\.toml: base: must be a file's name"):
        read_table(path)
    path.write_text('base = "b.toml"\n')
    with pytest.raises(ConfigError, match=r"b\.toml: .*No such file"):
        read_table(path)
    (tmp_path / "b.toml").write_text('base = "a.toml"\n')
    with pytest.raises(ConfigError, match="builds on itself"):
        read_table(path)
    path.write_text('base = "a.toml"\n')
    with pytest.raises(ConfigError, match="builds on itself"):
        read_table(path)
