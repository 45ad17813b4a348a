"""`python -m training baseline`: train a two-stream network as SyncNet or as Perfect Match, resumably.

A run leaves the folder that a recipe leaves, so that `evaluate` and `compare` treat it alike. All draws
depend on (seed, epoch, index) alone. B: windows; C: clips; N: candidates.
"""

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from avsync_cli.errors import ConfigError
from training.baseline_recipe import (
    DEFAULT_CANDIDATES,
    DEFAULT_MARGIN,
    BaselineCheckpoint,
    BaselineConfig,
    load_baseline,
    save_baseline,
)
from training.baselines import TWO_STREAM_DIMS, TwoStream, contrastive_loss, multiway_loss, pair_distances
from training.clips import LoadedClip
from training.config import as_table
from training.distill import Folder
from training.journal import Table, provenance_of, stop_requests
from training.optimise import learning_rate, parameter_groups
from training.pairs import ClipPairs, Pair, PairBatch, cut_pairs, fixed_pairs
from training.processes import Processes, pick_device
from training.progress import Progress
from training.sources import MemorySource, open_source
from training.steps import PairSource
from training.streams import StreamedPairs
from training.vocalist import Reach

LOG_COLUMNS = ("step", "epoch", "total", "rate", "norm", "seconds")
VAL_COLUMNS = ("step", "epoch", "f1", "accuracy", "loss")

ClipPair = tuple[LoadedClip, Pair]


@dataclass(frozen=True)
class BaselineTrainer:
    """What changes from step to step, and what it is made from."""

    config: BaselineConfig
    source: PairSource
    val_batches: list[PairBatch]
    net: TwoStream
    optimiser: torch.optim.Optimizer
    device: torch.device

    @property
    def steps_per_epoch(self) -> int:
        return self.source.epoch_pairs // self.config.data.batch

    @property
    def last_step(self) -> int:
        steps = self.steps_per_epoch * self.config.data.epochs
        return min(steps, self.config.max_steps or steps)


@dataclass(frozen=True)
class Outcome:
    """`loss`, a scalar; of P decisions, what was said and what is true: bool [P]."""

    loss: Tensor
    said: Tensor
    truth: Tensor


def train(config: BaselineConfig, run: Path, *, resume: bool = False) -> bool:
    """Train into a run folder; False where a signal ended it before the last step (see --resume)."""
    torch.set_num_threads(config.threads)
    origin = provenance_of(Path(config.cache))
    trainer = make_trainer(config)
    step, best, last = 0, -math.inf, trainer.last_step
    if resume:
        step, best = restore(trainer, load_baseline(run / "last.pt"), origin)
    elif (run / "last.pt").exists():
        raise ConfigError(f"{run}: already holds a run; give --resume or another folder")
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(json.dumps(as_table(config) | {"origin": origin}, indent=1) + "\n")
    with (
        open_tables(run, step) as folder,
        Progress(config.name, last, unit="steps", done=step) as progress,
        stop_requests() as stop,
    ):
        while step < last and not stop:
            row = take_step(trainer, step)
            step += 1
            if step % config.log_every == 0 or step == last:
                folder.add_step({"step": step, **row})
            progress.advance(1, text=f"loss {row['total']:.3f}")
            if step % validate_every(trainer) == 0 or step == last:
                figures = validate(trainer)
                folder.add_validation({"step": step, "epoch": row["epoch"], **figures})
                progress.note(f"step {step}: " + ", ".join(f"{k} {v:.4f}" for k, v in figures.items()))
                if criterion(figures) > best:
                    best = criterion(figures)
                    save_baseline(run / "best.pt", snapshot(trainer, step, {}, origin))
            if step % config.checkpoint_every == 0 or step == last:
                save_baseline(run / "last.pt", snapshot(trainer, step, to_go_on(trainer, best), origin))
        if step < last:
            save_baseline(run / "last.pt", snapshot(trainer, step, to_go_on(trainer, best), origin))
            progress.note(f"stopped after step {step}; --resume goes on from there")
    return step >= last


@contextmanager
def open_tables(run: Path, step: int) -> Iterator[Folder]:
    """The tables of a run of which `step` steps are done, and its TensorBoard."""
    board = SummaryWriter(run / "tensorboard", purge_step=step + 1 if step else None)
    try:
        yield Folder(
            Table(run / "log.csv", LOG_COLUMNS, keep_until=step),
            Table(run / "val.csv", VAL_COLUMNS, keep_until=step),
            board,
        )
    finally:
        board.close()


def make_trainer(config: BaselineConfig) -> BaselineTrainer:
    """A trainer before its first step. Raises ConfigError."""
    torch.manual_seed(config.seed)
    device = pick_device(config.device)
    net = TwoStream(TWO_STREAM_DIMS[config.network]).to(device)
    kind = torch.optim.Adam if config.optimiser.name == "adam" else torch.optim.AdamW
    optimiser = kind(parameter_groups(net.parameters(), weight_decay=config.optimiser.weight_decay), lr=0.0)
    source = open_pairs(config)
    trainer = BaselineTrainer(config, source, validation_batches(config), net, optimiser, device)
    if not trainer.steps_per_epoch:
        raise ConfigError(f"data: an epoch of {source.epoch_pairs} does not fill a batch")
    return trainer


def open_pairs(config: BaselineConfig) -> PairSource:
    """The pairs to train on, from a cache in memory or from shards. Raises ConfigError."""
    source = open_source(Path(config.cache), split="train", min_windows=windows_needed(config))
    if isinstance(source, MemorySource):
        return ClipPairs(source.clips, config.data, seed=config.seed, reach=Reach())
    return StreamedPairs(source, config.data, seed=config.seed, reach=Reach(), processes=Processes())


def validation_batches(config: BaselineConfig) -> list[PairBatch]:
    """Windows to validate on, the same at every validation. Raises ConfigError."""
    source = open_source(Path(config.cache), split="val", min_windows=windows_needed(config))
    fixed = config.validation
    pairs = fixed_pairs(source, fixed.pairs, seed=fixed.seed, reach=Reach(), negatives=config.data.negatives)
    batches = []
    while part := list(itertools.islice(pairs, config.data.batch)):
        batches.append(cut_windows(config, part))
    if not batches:
        raise ConfigError("no clip to validate on is loud enough to draw pairs from")
    return batches


def windows_needed(config: BaselineConfig) -> int:
    """How many windows a clip must have: one more than a negative needs, or all candidates."""
    return 2 if config.method == "contrastive" else candidates_of(config)


def candidates_of(config: BaselineConfig) -> int:
    return config.candidates or DEFAULT_CANDIDATES


def validate_every(trainer: BaselineTrainer) -> int:
    """Steps between validations."""
    config = trainer.config.validation
    return config.every_steps or (config.every_epochs or 1) * trainer.steps_per_epoch


def take_step(trainer: BaselineTrainer, step: int) -> dict[str, float]:
    """One update; returns the row for the log. Raises ConfigError for a gradient that is not finite."""
    began = perf_counter()
    config, optimiser = trainer.config, trainer.optimiser
    rate = learning_rate(step, trainer.steps_per_epoch, config.data.epochs, config.optimiser)
    for group in optimiser.param_groups:
        group["lr"] = rate
    epoch, place = divmod(step, trainer.steps_per_epoch)
    first = place * config.data.batch
    trainer.net.train()
    pairs = trainer.source.pairs(epoch, range(first, first + config.data.batch))
    loss = compute(trainer, cut_windows(config, pairs)).loss
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = float(nn.utils.clip_grad_norm_(trainer.net.parameters(), config.optimiser.clip_norm or math.inf))
    if not math.isfinite(norm):
        raise ConfigError(
            f"step {step}: the gradient is not finite; lower the learning rate or set clip_norm"
        )
    optimiser.step()
    about = {"rate": rate, "norm": norm, "seconds": perf_counter() - began}
    return {"epoch": epoch, "total": loss.item()} | about


def cut_windows(config: BaselineConfig, pairs: Sequence[ClipPair]) -> PairBatch:
    """The windows of drawn pairs, or for "multi-way" those of the runs around them, C * N."""
    if config.method == "multi-way":
        count = candidates_of(config)
        pairs = [window for clip, pair in pairs for window in run_around(clip, pair.video_tick, count)]
    return cut_pairs(pairs, Reach())


def run_around(clip: LoadedClip, tick: int, count: int) -> list[ClipPair]:
    """`count` neighbouring windows of a clip with their own sounds, the tick's among them."""
    first, end = clip.run
    start = min(max(first, tick - count // 2), end - count)
    return [(clip, Pair(place, place)) for place in range(start, start + count)]


def compute(trainer: BaselineTrainer, batch: PairBatch) -> Outcome:
    """The loss of a batch, and of each decision in it what the network says and what is true."""
    config, batch = trainer.config, batch.to(trainer.device)
    video, audio = trainer.net.encode_video(batch.frames), trainer.net.encode_audio(batch.mels)
    if config.method == "contrastive":
        margin = config.margin or DEFAULT_MARGIN
        said = pair_distances(video, audio) < margin / 2
        return Outcome(contrastive_loss(video, audio, batch.labels, margin=margin), said, batch.labels > 0)
    count = candidates_of(config)
    video, audio = video.unflatten(0, (-1, count)), audio.unflatten(0, (-1, count))  # [C, N, D]
    nearest = pair_distances(video.unsqueeze(2), audio.unsqueeze(1)).argmin(dim=2)  # [C, N]
    said = nearest == torch.arange(count, device=nearest.device)
    return Outcome(multiway_loss(video, audio), said.flatten(), torch.ones_like(said).flatten())


@torch.no_grad()
def validate(trainer: BaselineTrainer) -> dict[str, float]:
    """Mean loss and accuracy on the fixed windows; for "contrastive" also the F1 of what is in sync."""
    trainer.net.eval()
    outcomes = [compute(trainer, batch) for batch in trainer.val_batches]
    said, truth = (torch.cat([getattr(o, name) for o in outcomes]) for name in ("said", "truth"))
    total = sum(len(outcome.said) * outcome.loss.item() for outcome in outcomes)
    figures = {"accuracy": (said == truth).float().mean().item(), "loss": total / len(said)}
    if trainer.config.method == "contrastive":
        hits, wrong = int((said & truth).sum()), int((said != truth).sum())
        figures["f1"] = 2 * hits / max(2 * hits + wrong, 1)
    return figures


def criterion(figures: dict[str, float]) -> float:
    """What the best weights are chosen by: F1 where pairs are told apart, else how many sounds are found."""
    return figures.get("f1", figures["accuracy"])


def to_go_on(trainer: BaselineTrainer, best: float) -> dict[str, Any]:
    """What a checkpoint holds beside the network for a run to go on from."""
    return {"optimiser": trainer.optimiser.state_dict(), "best": best}


def snapshot(
    trainer: BaselineTrainer, step: int, rest: dict[str, Any], origin: dict[str, str]
) -> BaselineCheckpoint:
    return BaselineCheckpoint(trainer.config, step, trainer.net.state_dict(), rest, origin)


def restore(
    trainer: BaselineTrainer, checkpoint: BaselineCheckpoint, origin: dict[str, str]
) -> tuple[int, float]:
    """Put a trainer where a checkpoint left off; returns the steps done and the best figure so far."""
    if checkpoint.config != trainer.config:
        raise ConfigError("the checkpoint was made with another configuration")
    if checkpoint.origin["cache_manifest_sha256"] != origin["cache_manifest_sha256"]:
        raise ConfigError("the checkpoint was made with another cache")
    trainer.net.load_state_dict(checkpoint.network)
    trainer.optimiser.load_state_dict(checkpoint.rest["optimiser"])
    return checkpoint.step, float(checkpoint.rest["best"])
