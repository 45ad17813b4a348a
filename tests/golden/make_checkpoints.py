"""Record what an earlier avsync wrote: checkpoints of every kind, a student, and the scores it gave by each.

Run it in a tree whose `training` is still one flat folder, as it was at commit 74faa0d:

    git worktree add ../before 74faa0d
    PYTHONPATH=../before python tests/golden/make_checkpoints.py tests/golden/checkpoints

The weights mean nothing. All of a file's tensors are views into one short row of half-precision numbers, so
that even a network of full size takes a few kB, and every file but the tables is packed by gzip.
"""

import gzip
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from training.baselines import TWO_STREAM_DIMS, TwoStream
from training.cache import CachedClip
from training.checkpoint import Checkpoint, save_checkpoint
from training.clips import LoadedClip
from training.judged import open_judged
from training.match import make_match_net
from training.methods import make_method
from training.optimise import parameter_groups
from training.recipe_checkpoint import RecipeCheckpoint, save_recipe_checkpoint
from training.validate import score_clip

from avsync_cli.mel import MelTrack
from export.student import export_student
from export.trained import open_trained
from training.baseline_recipe import BaselineCheckpoint, BaselineConfig, save_baseline
from training.config import MatchConfig, from_table
from training.networks import make_network
from training.recipe import Recipe

FRAMES = 9
ROW, POSITIVE = 4700, 700  # numbers, of which the last are positive, for variances and scales
ORIGIN = {"commit": "74faa0d", "cache_manifest_sha256": "0" * 64}
SIZES: dict[str, Any] = {
    "embedding": 8,
    "video_widths": [4, 4, 4],
    "video_blocks": [1, 0, 0],
    "lips_width": 4,
    "audio_widths": [4, 4, 4, 4],
}
COMPACT = {
    "width": 8,
    "heads": 2,
    "layers": 1,
    "audio_widths": [4, 4, 4, 4],
    "sizes": {key: value for key, value in SIZES.items() if key != "embedding"},
}
PUBLISHED = {"width": 8, "channels": [2, 2, 4, 4, 8], "heads": 2, "layers": 1}


class Row:
    """Numbers that every tensor of a file is a view into, each from a place of its own."""

    _PLACES = 512  # of counters, which must not share one

    def __init__(self, seed: int, *, scale: float = 0.2) -> None:
        rng = np.random.default_rng(seed)
        mixed, positive = scale * rng.standard_normal(ROW - POSITIVE), 0.5 + rng.random(POSITIVE)
        self._numbers = torch.from_numpy(np.concatenate([mixed, positive])).half()
        self._rng = rng
        self._steps = iter(torch.full((self._PLACES,), 3.0))
        self._batches = iter(torch.full((self._PLACES,), 3))

    def like(self, value: Tensor, *, positive: bool = False) -> Tensor:
        """A tensor of this shape; its element (i, j, ...) is number i + j + ... from its place on."""
        long = sum(size - 1 for size in value.shape) + 1
        first, end = (ROW - POSITIVE, ROW) if positive else (0, ROW - POSITIVE)
        place = int(self._rng.integers(first, end - long + 1))
        return self._numbers.as_strided(value.shape, (1,) * value.ndim, place)

    def weights(self, net: nn.Module) -> dict[str, Tensor]:
        norms = {
            f"{name}.weight"
            for name, module in net.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm)
        }
        return {
            key: self.like(value, positive=key.endswith("running_var") or key in norms)
            if value.is_floating_point()
            else next(self._batches)
            for key, value in net.state_dict().items()
        }

    def optimiser(self, kind: type[torch.optim.Adam], parameters: list[nn.Parameter]) -> dict[str, Any]:
        """The state of an optimiser after 3 steps."""
        state = kind(parameter_groups(parameters, weight_decay=0.01), lr=1e-3).state_dict()
        ordered = [p for p in parameters if p.ndim >= 2] + [p for p in parameters if p.ndim < 2]
        state["state"] = {
            number: {
                "step": next(self._steps),
                "exp_avg": self.like(parameter),
                "exp_avg_sq": self.like(parameter, positive=True),
            }
            for number, parameter in enumerate(ordered)
        }
        return state


def matching(path: Path, table: dict[str, Any], *, to_go_on: bool) -> None:
    config = from_table(MatchConfig, table, where="golden")
    net, row = make_match_net(config), Row(1)
    optimiser = row.optimiser(torch.optim.AdamW, list(net.parameters())) if to_go_on else {}
    save_checkpoint(path, Checkpoint(config, 3, row.weights(net), row.weights(net), optimiser, ORIGIN))


def recipe(path: Path, table: dict[str, Any], *, to_go_on: bool) -> None:
    made = from_table(Recipe, table, where="golden")
    student, row = make_network(made.network), Row(2)
    width = student.net.dims.width if hasattr(student, "net") else student.dims.width
    method = make_method(made.method, student_width=width, teacher_width=width)
    learned = [*student.parameters(), *method.parameters()]
    rest = {
        "student": row.weights(student),
        "method": row.weights(method),
        "optimiser": row.optimiser(torch.optim.Adam, learned),
        "best_f1": 0.25,
    }
    crop = "rgb" if table["network"]["preset"] == "mtdvocalist" else "grey"
    origin = ORIGIN | {"crop": crop, "teacher_sha256": "", "started": "", "start_sha256": ""}
    save_recipe_checkpoint(
        path, RecipeCheckpoint(made, 3, row.weights(student), rest if to_go_on else {}, origin)
    )


def baseline(path: Path) -> None:
    table = {"name": "old", "cache": "cache", "method": "contrastive", "network": "two-stream-small"}
    table |= {"data": {"batch": 2, "epochs": 2, "epoch_pairs": 4}, "validation": {"pairs": 4}}
    table |= {"threads": 1, "device": "cpu"}
    config, row = from_table(BaselineConfig, table, where="golden"), Row(3)
    net = TwoStream(TWO_STREAM_DIMS[config.network])
    rest = {"optimiser": row.optimiser(torch.optim.Adam, list(net.parameters())), "best": 0.25}
    save_baseline(path, BaselineCheckpoint(config, 3, row.weights(net), rest, ORIGIN))


def authors_weights(path: Path) -> None:
    """The form of the authors' own files, of their student at its full size."""
    table = {"name": "x", "cache": "x", "network": {"preset": "mtdvocalist"}, "method": {"name": "BCE"}}
    network = make_network(from_table(Recipe, table, where="golden").network)
    torch.save({"state_dict": Row(4, scale=0.05).weights(network.net)}, path)


def make_clip() -> LoadedClip:
    """A clip of FRAMES frames, and somewhat more sound on both sides."""
    rng = np.random.default_rng(5)
    crops = np.broadcast_to(rng.integers(0, 256, (FRAMES, 12, 1), np.uint8), (FRAMES, 12, 24))
    crops = crops.repeat(4, axis=1).repeat(4, axis=2)
    lips = rng.integers(-64, 64, (FRAMES, 40, 3)).astype(np.float16) / 128
    mel = (rng.integers(-16, 16, (52, 20)).astype(np.float32) / 4).repeat(4, axis=1)
    entry = CachedClip("a.mp4", "val", "a", "wild", False, 0.0, FRAMES)
    return LoadedClip(entry, crops, lips, 2, MelTrack(mel, 0, 0, 12))


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    common = {"cache": "cache", "steps": 8, "threads": 1}
    small = common | {"model": SIZES, "data": {"start": {"wild": 1.0}, "clips": 2}}
    edge = common | {"network": "mtdvocalist-edge", "model": {"embedding": 8}}
    matching(folder / "match.pt", small, to_go_on=True)
    matching(folder / "match_edge.pt", edge, to_go_on=False)
    table: dict[str, Any] = {"name": "old", "cache": "cache", "method": {"name": "BCE"}}
    table |= {"data": {"batch": 4, "epochs": 2, "epoch_pairs": 8}, "validation": {"pairs": 4}}
    table |= {"threads": 1, "device": "cpu"}
    compact = {"network": {"preset": "mtdvocalist-edge", "dims": COMPACT}}
    published = {"network": {"preset": "mtdvocalist", "dims": PUBLISHED}}
    recipe(folder / "recipe_last.pt", table | compact, to_go_on=True)
    recipe(folder / "recipe_best.pt", table | published, to_go_on=False)
    baseline(folder / "baseline.pt")
    authors_weights(folder / "authors.pth")
    export_student(open_trained(folder / "match.pt"), folder / "student")

    clip = make_clip()
    given = {"crops": clip.crops, "lips": clip.lips, "mel": clip.mel.mel}
    about = asdict(clip.mel) | {"video_tick": clip.first_tick}
    given |= {name: np.array(about[name]) for name in ("video_tick", "origin_tick", "first_tick", "ticks")}
    scores = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".pt", ".pth") or path.is_dir():
            network = "mtdvocalist" if path.name == "authors.pth" else None
            judged = open_judged(path, network=network, threads=1)
            scores[f"scores/{path.name}"] = score_clip(clip, judged.encoders)
            found = scores[f"scores/{path.name}"]
            print(path.name, found.shape, np.nanmin(found), np.nanmax(found), np.nanstd(found))
    for path in [path for path in folder.rglob("*") if path.suffix in (".pt", ".pth", ".onnx")]:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        path.unlink()
    np.savez_compressed(folder / "scores.npz", **given, **scores)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
