"""`python -m training baseline`: train SyncNet, Perfect Match or AVST, resumably.

A run leaves the folder that a recipe leaves, so that `evaluate` and `compare` treat it alike. All draws
depend on (seed, epoch, index) alone. Several processes (`torchrun`) share a step's batch; batch norm then
sees a process' share. B: windows; C: clips; N: candidates.
"""

from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from avsync_cli.errors import ConfigError
from training.baseline_recipe import DEFAULT_MARGIN, BaselineConfig
from training.data.pairs import PairBatch, PairSource
from training.data.provenance import provenance_of
from training.data.sources import crop_of
from training.loops.baseline_pairs import BaselineDraw, candidates_of, open_pairs, validation_batches
from training.loops.feed import Feed, make_feed
from training.loops.hasten import allow_tf32, hasten
from training.loops.loop import Loop, Origin, Progressed, Validation, in_words, run_loop, steps_between
from training.loops.optimise import clip_gradient, parameter_groups, rate_by_epochs, set_rate
from training.loops.steps import NormStatistics
from training.networks.avst import Avst, offsets_loss
from training.networks.two_stream import TwoStream, contrastive_loss, multiway_loss, pair_distances
from training.processes import Processes, join_processes, pick_device
from training.weights.baseline_checkpoint import (
    BaselineCheckpoint,
    load_baseline,
    make_baseline,
    save_baseline,
)

LOG_COLUMNS = ("step", "epoch", "total", "rate", "norm", "waited", "seconds")
VAL_COLUMNS = ("step", "epoch", "f1", "accuracy", "loss")


@dataclass(frozen=True)
class BaselineTrainer:
    """What changes from step to step, and what it is made from."""

    config: BaselineConfig
    source: PairSource
    val_batches: list[PairBatch]
    net: TwoStream | Avst
    optimiser: torch.optim.Optimizer
    device: torch.device
    processes: Processes
    feed: Feed

    @property
    def steps_per_epoch(self) -> int:
        return self.source.epoch_pairs // self.config.data.batch

    @property
    def last_step(self) -> int:
        return last_step(self.config, self.steps_per_epoch)


@dataclass(frozen=True)
class Decided:
    """`loss`, a scalar; of P decisions, what was said and what is true: bool [P]."""

    loss: Tensor
    said: Tensor
    truth: Tensor


def train(config: BaselineConfig, run: Path, *, resume: bool = False, track: str | None = None) -> bool:
    """Train into a run folder; False where a signal ended it before the last step (see --resume)."""
    torch.set_num_threads(config.threads)
    allow_tf32(config.speed)
    folder, device = Path(config.cache), pick_device(config.device)
    origin = provenance_of(folder) | {"crop": crop_of(folder)}
    with join_processes(device, parts=config.data.batch, what="pairs of a batch") as processes:
        trainer = make_trainer(config, processes)
        with closing(trainer.feed):
            return run_loop(replace(make_loop(trainer, origin), track=track), run, resume=resume)


def make_loop(trainer: BaselineTrainer, origin: Origin) -> Loop:
    """What a baseline brings to the loop."""
    config = trainer.config

    def judge(_step: int) -> Validation:
        found = validate(trainer)
        return Validation([found], in_words(found), criterion(found))

    def resume(path: Path) -> tuple[Progressed, Origin]:
        return Progressed(*restore(trainer, load_baseline(path), origin)), origin

    def save(path: Path, done: Progressed, origin: Origin, *, to_go_on: bool) -> None:
        rest = rest_of(trainer, done.best) if to_go_on else {}
        save_baseline(path, snapshot(trainer, done.step, rest, origin))

    return Loop(
        config.name,
        config,
        last_step=trainer.last_step,
        validate_every=steps_between(config.validation, trainer.steps_per_epoch),
        take_step=partial(take_step, trainer),
        validate=judge,
        start=lambda: origin,
        restore=resume,
        save=save,
        log_columns=LOG_COLUMNS,
        val_columns=VAL_COLUMNS,
        device=trainer.device,
        processes=trainer.processes,
    )


def make_trainer(config: BaselineConfig, processes: Processes | None = None) -> BaselineTrainer:
    """A trainer before its first step. Raises ConfigError."""
    processes = processes or Processes()
    torch.manual_seed(config.seed)
    device = pick_device(config.device)
    net = make_baseline(config.network).to(device)
    hasten(net, config.speed)
    kind = torch.optim.Adam if config.optimiser.name == "adam" else torch.optim.AdamW
    optimiser = kind(parameter_groups(net.parameters(), weight_decay=config.optimiser.weight_decay), lr=0.0)
    source = open_pairs(config)
    steps_per_epoch = source.epoch_pairs // config.data.batch
    if not steps_per_epoch:
        raise ConfigError(f"data: an epoch of {source.epoch_pairs} does not fill a batch")
    feed = make_feed(
        BaselineDraw(config, source, processes.world),
        config.speed,
        parts=range(processes.rank, processes.rank + 1),
        last_step=last_step(config, steps_per_epoch),
        device=device,
    )
    val_batches = validation_batches(config)
    return BaselineTrainer(config, source, val_batches, net, optimiser, device, processes, feed)


def last_step(config: BaselineConfig, steps_per_epoch: int) -> int:
    steps = steps_per_epoch * config.data.epochs
    return min(steps, config.max_steps or steps)


def take_step(trainer: BaselineTrainer, step: int) -> dict[str, float]:
    """One update; returns the row for the log. Raises ConfigError for a gradient that is not finite."""
    began = perf_counter()
    config, optimiser = trainer.config, trainer.optimiser
    rate = rate_by_epochs(step, trainer.steps_per_epoch, config.data.epochs, config.optimiser)
    set_rate(optimiser, rate)
    trainer.net.train()
    statistics = NormStatistics(trainer.net)
    batch = trainer.feed.batch(step, trainer.processes.rank)
    waited = perf_counter() - began
    # Dropout draws from torch's own generator.
    torch.manual_seed((config.seed * 1_000_003 + step) * trainer.processes.world + trainer.processes.rank)
    loss = compute(trainer, batch).loss
    statistics.collect()
    optimiser.zero_grad(set_to_none=True)
    (loss / trainer.processes.world).backward()
    total = loss.detach() / trainer.processes.world
    gradients = [parameter.grad for parameter in trainer.net.parameters() if parameter.grad is not None]
    trainer.processes.add_up([*gradients, total])
    statistics.write_mean(trainer.processes.world, trainer.processes)
    norm = clip_gradient(trainer.net.parameters(), config.optimiser.clip_norm, step=step)
    optimiser.step()
    about = {"rate": rate, "norm": norm, "waited": waited, "seconds": perf_counter() - began}
    return {"epoch": step // trainer.steps_per_epoch, "total": total.item()} | about


def compute(trainer: BaselineTrainer, batch: PairBatch) -> Decided:
    """The loss of a batch, and of each decision in it what the network says and what is true."""
    config, batch = trainer.config, batch.to(trainer.device)
    video, audio = trainer.net.encode_video(batch.frames), trainer.net.encode_audio(batch.mels)
    if isinstance(trainer.net, Avst):
        count = candidates_of(config)
        scores = trainer.net.score_pairs(video.repeat_interleave(count, dim=0), audio).unflatten(
            0, (-1, count)
        )
        aim = batch.labels.view_as(scores).argmax(dim=1)
        right = scores.argmax(dim=1) == aim
        return Decided(offsets_loss(scores, aim), right, torch.ones_like(right))
    if config.method == "contrastive":
        margin = config.margin or DEFAULT_MARGIN
        said = pair_distances(video, audio) < margin / 2
        return Decided(contrastive_loss(video, audio, batch.labels, margin=margin), said, batch.labels > 0)
    count = candidates_of(config)
    video, audio = video.unflatten(0, (-1, count)), audio.unflatten(0, (-1, count))  # [C, N, D]
    nearest = pair_distances(video.unsqueeze(2), audio.unsqueeze(1)).argmin(dim=2)  # [C, N]
    said = nearest == torch.arange(count, device=nearest.device)
    return Decided(multiway_loss(video, audio), said.flatten(), torch.ones_like(said).flatten())


@torch.no_grad()
def validate(trainer: BaselineTrainer) -> dict[str, float]:
    """Mean loss and accuracy on the fixed windows; for "contrastive" also the F1 of what is in sync."""
    trainer.net.eval()
    decided = [compute(trainer, batch) for batch in trainer.val_batches]
    said, truth = (torch.cat([getattr(part, name) for part in decided]) for name in ("said", "truth"))
    total = sum(len(part.said) * part.loss.item() for part in decided)
    figures = {"accuracy": (said == truth).float().mean().item(), "loss": total / len(said)}
    if trainer.config.method == "contrastive":
        hits, wrong = int((said & truth).sum()), int((said != truth).sum())
        figures["f1"] = 2 * hits / max(2 * hits + wrong, 1)
    return figures


def criterion(figures: dict[str, float]) -> float:
    """What the best weights are chosen by: F1 where pairs are told apart, else how many sounds are found."""
    return figures.get("f1", figures["accuracy"])


def rest_of(trainer: BaselineTrainer, best: float) -> dict[str, Any]:
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
    if _to_keep(checkpoint.config) != _to_keep(trainer.config):
        raise ConfigError("the checkpoint was made with another configuration")
    if checkpoint.origin["cache_manifest_sha256"] != origin["cache_manifest_sha256"]:
        raise ConfigError("the checkpoint was made with another cache")
    trainer.net.load_state_dict(checkpoint.network)
    trainer.optimiser.load_state_dict(checkpoint.rest["optimiser"])
    return checkpoint.step, float(checkpoint.rest["best"])


def _to_keep(config: BaselineConfig) -> BaselineConfig:
    """What must not change when a run goes on: all but who draws."""
    return replace(config, speed=config.speed.of_any_machine())
