"""`python -m training reproduce`: from LRS2 to the paper's tables and figures, in one resumable command.

It does what the single commands do, in their order and with their files, and skips what is already there.
"""

from dataclasses import replace
from pathlib import Path

from training.cache import MANIFEST, PUBLISHED
from training.compare import compare
from training.distill import BEST, LAST, train, with_files
from training.evaluate import PROTOCOL, evaluate, write_result
from training.lrs2 import read_lists
from training.prepare import crop_kind, fill_cache
from training.recipe import Recipe, read_recipe
from training.runs import METRICS
from training.shards import INDEX, write_shards
from training.smoke import shrink_recipe

CONFIGS = Path(__file__).parent / "configs"
EXPERIMENTS = ("table1", "table2", "fig3", "fig4")
LISTS = ("pretrain.txt", "val.txt", "test.txt")  # trained on, chosen by, measured on

_TEACHER = CONFIGS / "teacher" / "vocalist.toml"
_CLIPS_PER_SHARD = 1000


def reproduce(
    root: Path,
    output: Path,
    *,
    experiments: list[str],
    vocalist: Path | None,
    jobs: int,
    command: str,
    smoke: bool = False,
) -> str | None:
    """Run the experiments; returns the comparison, or None where a signal ended it (run it again).

    `vocalist` are the authors' weights for the teacher to start from; None: it starts from nothing.
    Raises ConfigError.
    """
    cache, shards, runs = output / "cache", output / "shards", output / "runs"
    prepare_data(root, cache, shards, jobs=jobs)
    teacher = replace(read_recipe(_TEACHER), cache=str(shards))
    teacher = replace(teacher, network=replace(teacher.network, weights=None))
    if not run_recipe(with_files(teacher, start=vocalist), runs, cache, jobs=jobs, smoke=smoke):
        return None
    for experiment in experiments:
        for path in sorted((CONFIGS / experiment).glob("*.toml")):
            recipe = replace(read_recipe(path), cache=str(shards))
            if recipe.teacher is not None:
                recipe = with_files(recipe, teacher=runs / teacher.name / BEST)
            if not run_recipe(recipe, runs, cache, jobs=jobs, smoke=smoke):
                return None
    made = sorted(folder.parent for folder in runs.glob(f"*/{METRICS}"))
    return compare(made, output / "comparison", runs=runs, command=command, published=True)


def prepare_data(root: Path, cache: Path, shards: Path, *, jobs: int) -> None:
    """Prepare the clips and pack them; what an earlier call finished is kept."""
    if (shards / INDEX).exists() and (cache / MANIFEST).exists():
        return
    tasks = read_lists(root, [Path(name) for name in LISTS])
    fill_cache(cache, tasks, jobs=jobs, crop=crop_kind(tasks, wanted=PUBLISHED), unit="clips")
    write_shards(cache, shards, clips_per_shard=_CLIPS_PER_SHARD)


def run_recipe(recipe: Recipe, runs: Path, cache: Path, *, jobs: int, smoke: bool) -> bool:
    """Train into the recipe's folder, from where it was left, and measure; False where a signal ended it."""
    run = runs / recipe.name
    if (run / METRICS).exists():
        return True
    if smoke:
        recipe = shrink_recipe(recipe)
    if not train(recipe, run, resume=(run / LAST).exists()):
        return False
    result = evaluate(run / BEST, [PROTOCOL], cache=cache, corpus=None, split="test", jobs=jobs)
    write_result(run / METRICS, result)
    return True
