"""`python -m training reproduce`: from LRS2 to the paper's tables and figures, in one resumable command.

It does what the single commands do, in their order and with their files, and skips what is already there, if
it is what would be made now. Runs that differ in their labels alone are trained once.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from avsync_cli.errors import ConfigError
from training.baseline_recipe import BaselineConfig, read_baseline
from training.data.cache import MANIFEST, PUBLISHED
from training.data.lrs2 import read_lists
from training.data.prepare import crop_kind, fill_cache
from training.data.shards import INDEX, write_shards
from training.evaluation.evaluate import PROTOCOL, evaluate, write_result
from training.loops import baseline, distill
from training.loops.distill import with_files
from training.loops.loop import BEST, LAST
from training.recipe import read_recipe
from training.reproduction.compare import compare
from training.reproduction.resume import (
    AnyRecipe,
    copy_figures,
    find_original,
    require_same_data,
    require_same_run,
)
from training.reproduction.runs import METRICS
from training.smoke import shrink_baseline, shrink_recipe

CONFIGS = Path(__file__).parents[1] / "configs"
BASELINES = "fig2"
EXPERIMENTS = ("table1", "table2", BASELINES, "fig3", "fig4")
LISTS = ("pretrain.txt", "val.txt", "test.txt")  # trained on, chosen by, measured on

_TEACHER = CONFIGS / "teacher" / "vocalist.toml"
_FULL_TEACHER = CONFIGS / "teacher" / "vocalist-600.toml"
_CLIPS_PER_SHARD = 1000


@dataclass(frozen=True)
class ReproduceOptions:
    """How the experiments are run: how many seeds of each, by the published code's rules or by ours, the
    teacher for 600 epochs, or everything at a size to try the commands with."""

    seeds: int = 1
    as_published: bool = False
    full_teacher: bool = False
    smoke: bool = False


DEFAULTS = ReproduceOptions()


def reproduce(
    root: Path,
    output: Path,
    *,
    experiments: list[str],
    vocalist: Path | None,
    jobs: int,
    command: str,
    options: ReproduceOptions = DEFAULTS,
) -> str | None:
    """Run the experiments; returns the comparison, or None where a signal ended it (run it again).

    `vocalist` are the authors' weights for the teacher to start from; None: it starts from nothing.
    Raises ConfigError, also where the folder holds something that would not be made now.
    """
    if options.smoke and vocalist is not None:
        raise ConfigError("--vocalist: has no use with --smoke, whose tiny teacher starts from nothing")
    if options.full_teacher and vocalist is not None:
        raise ConfigError("--full-teacher: has no use with --vocalist, which was trained so")
    if vocalist is not None and not vocalist.is_file():
        raise ConfigError(f"{vocalist}: no such file")
    cache, shards, runs = output / "cache", output / "shards", output / "runs"
    require_same_data(output, root, LISTS)
    prepare_data(root, cache, shards, jobs=jobs, sound=options.as_published)
    recipes = read_experiments(experiments, shards, runs, vocalist=vocalist, options=options)
    for recipe in recipes:
        if not run_recipe(recipe, recipes, runs, cache, jobs=jobs):
            return None
    made = sorted(folder.parent for folder in runs.glob(f"*/{METRICS}"))
    return compare(made, output / "comparison", runs=runs, command=command, published=True)


def prepare_data(root: Path, cache: Path, shards: Path, *, jobs: int, sound: bool = False) -> None:
    """Prepare the clips and pack them; what an earlier call finished is kept. `sound`: with their samples."""
    if (shards / INDEX).exists() and (cache / MANIFEST).exists():
        return
    tasks = read_lists(root, [root / name for name in LISTS])
    kind = crop_kind(tasks, wanted=PUBLISHED)
    fill_cache(cache, tasks, jobs=jobs, crop=kind, unit="clips", sound=sound)
    write_shards(cache, shards, clips_per_shard=_CLIPS_PER_SHARD)


def read_experiments(
    experiments: list[str],
    shards: Path,
    runs: Path,
    *,
    vocalist: Path | None,
    options: ReproduceOptions = DEFAULTS,
) -> list[AnyRecipe]:
    """What is to be trained, in order: the teacher, then the experiments' recipes, with their files.

    The teacher is one, whatever the number of seeds. The runs of the first seed have their recipe's name.
    """
    changes = ["as_published=true"] if options.as_published else []
    teacher = read_recipe(_FULL_TEACHER if options.full_teacher else _TEACHER, changes)
    teacher = replace(teacher, network=replace(teacher.network, weights=None))
    recipes: list[AnyRecipe] = []
    for experiment in experiments:
        for path in sorted((CONFIGS / experiment).glob("*.toml")):
            if experiment == BASELINES:
                recipes.append(replace(read_baseline(path), cache=str(shards)))
                continue
            recipe = read_recipe(path, changes)
            weights = None if recipe.teacher is None else runs / teacher.name / BEST
            recipes.append(with_files(recipe, cache=shards, teacher=weights))
    seeded: list[AnyRecipe] = [with_files(teacher, cache=shards, start=vocalist)]
    for seed in range(options.seeds):
        seeded += [_with_seed(recipe, seed) for recipe in recipes]
    return [_shrink(recipe) for recipe in seeded] if options.smoke else seeded


def _with_seed(recipe: AnyRecipe, seed: int) -> AnyRecipe:
    """The recipe of the seed that is so many after its own."""
    if seed == 0:
        return recipe
    seed += recipe.seed
    return replace(recipe, seed=seed, name=f"{recipe.name}-seed{seed}")


def run_recipe(recipe: AnyRecipe, recipes: list[AnyRecipe], runs: Path, cache: Path, *, jobs: int) -> bool:
    """Bring the recipe's folder to have figures; False where a signal ended it.

    It is trained, from where it was left, and measured, or, where another of `recipes` trains the same, that
    one is and its figures are copied. Raises ConfigError where the folder holds another run.
    """
    run = runs / recipe.name
    has_begun, is_done = (run / LAST).exists(), (run / METRICS).exists()
    if has_begun or is_done:
        require_same_run(run, recipe)
    if is_done:
        return True
    original = find_original(recipe, recipes)
    if original is not recipe and not has_begun:
        if not run_recipe(original, recipes, runs, cache, jobs=jobs):
            return False
        copy_figures(runs / original.name, run, recipe)
        return True
    if not _train(recipe, run, resume=has_begun):
        return False
    result = evaluate(run / BEST, [PROTOCOL], cache=cache, corpus=None, split="test", jobs=jobs)
    write_result(run / METRICS, result)
    return True


def _shrink(recipe: AnyRecipe) -> AnyRecipe:
    return shrink_baseline(recipe) if isinstance(recipe, BaselineConfig) else shrink_recipe(recipe)


def _train(recipe: AnyRecipe, run: Path, *, resume: bool) -> bool:
    if isinstance(recipe, BaselineConfig):
        return baseline.train(recipe, run, resume=resume)
    return distill.train(recipe, run, resume=resume)
