"""How many pairs a second are drawn from shards, by the process itself and by workers.

python tests/benchmarks/bench_feed.py

writes clips of the size of LRS2's (180 RGB frames, 2.5 MB) and goes through them for some epochs. The first
epoch, in which hashes are compared and files come from disk, is told apart.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from colour_cache import make_colour_cache

from training.data.shards import write_shards
from training.loops.feed import make_feed
from training.loops.recipe_pairs import RecipeDraw, open_pairs
from training.reach import Reach
from training.recipe import MethodConfig, NetworkConfig, PairsConfig, Recipe, SpeedConfig


def measure(shards: Path, *, workers: int, batch: int, epochs: int) -> None:
    """Print pairs a second by the clock and by this process's CPU time, the first epoch's apart."""
    data = PairsConfig(batch=batch, epochs=epochs)
    recipe = Recipe("bench", str(shards), NetworkConfig("mtdvocalist"), MethodConfig("BCE"), data=data)
    source, _ = open_pairs(recipe, [], Reach())
    steps = source.epoch_pairs // batch
    draw, speed = RecipeDraw(recipe, Reach(), source), SpeedConfig(workers=workers)
    feed = make_feed(draw, speed, parts=range(1), last_step=epochs * steps, device=torch.device("cpu"))
    began, used = perf_counter(), process_time()
    for step in range(epochs * steps):
        feed.batch(step, 0)
        if step + 1 == steps:
            first = steps * batch / (perf_counter() - began)
            began, used = perf_counter(), process_time()
    pairs = (epochs - 1) * steps * batch
    seconds, cpu_seconds = perf_counter() - began, process_time() - used
    of_cpu = "" if workers else f", {pairs / cpu_seconds:.0f} a CPU-second"
    print(f"{workers} workers: {pairs / seconds:.0f} pairs a second{of_cpu}; in the first epoch {first:.0f}")
    feed.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=150, help="of which two thirds are trained on")
    parser.add_argument("--frames", type=int, default=180)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        cache = make_colour_cache(Path(folder) / "cache", clips=options.clips, frames=options.frames)
        write_shards(cache, Path(folder) / "shards", clips_per_shard=25)
        for count in options.workers:
            measure(Path(folder) / "shards", workers=count, batch=options.batch, epochs=options.epochs)
