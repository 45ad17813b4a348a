"""`python -m training match`: train the two encoders by matching, on the CPU, resumable to the bit."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor
from torch.nn import functional as F

from avsync_cli.errors import ConfigError
from training.config import WINDOW_NETWORK, MatchConfig
from training.data.augment_batch import augment_batch
from training.data.cache import require_grey
from training.data.clips import LoadedClip, Sampler, audio_windows, load_clips, video_windows
from training.data.provenance import provenance_of
from training.evaluation.score_clips import group_figures, score_clip
from training.evaluation.torch_encoders import match_encoders
from training.loops.loop import Loop, Origin, Progressed, Validation, run_loop
from training.loops.optimise import (
    descend,
    parameter_groups,
    rate_by_steps,
    seed_step,
    set_rate,
    update_average,
)
from training.losses.matching import MatchLoss, match_loss
from training.networks.compact import EDGE, FINE
from training.networks.token_match import TokenMatchNet, make_match_net
from training.networks.window_match import MatchNet
from training.reach import Reach
from training.weights.match_checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_start,
    same_weights,
    save_checkpoint,
)

LOG_COLUMNS = ("step", "total", "rows", "columns", "curve", "null", "gate", "norm", "rate", "seconds")
VAL_COLUMNS = ("step", "group", "clips", "5", "15", "clip")


@dataclass(frozen=True)
class MatchTrainer:
    """What changes from step to step, and what it is made from."""

    config: MatchConfig
    sampler: Sampler
    net: MatchNet | TokenMatchNet
    average: MatchNet | TokenMatchNet
    optimiser: torch.optim.Optimizer


def train(
    config: MatchConfig,
    run: Path,
    *,
    cache: Path | None = None,
    start: Path | None = None,
    resume: bool = False,
    track: str | None = None,
) -> bool:
    """Train into a run folder; False where a signal ended it before the last step (see --resume)."""
    torch.set_num_threads(config.threads)
    cache = cache or Path(config.cache)
    origin = provenance_of(cache)
    require_grey(cache)
    trainer = make_trainer(config, load_clips(cache, split="train"))
    val_clips = load_clips(cache, split="val") if config.validate_every else []
    begin = start or (Path(config.start) if config.start else None)
    loop = make_loop(trainer, val_clips, origin=origin, begin=begin)
    return run_loop(replace(loop, track=track), run, resume=resume)


def make_loop(
    trainer: MatchTrainer, val_clips: list[LoadedClip], *, origin: dict[str, str], begin: Path | None
) -> Loop:
    """What the matching brings to the loop; `begin` is a checkpoint to start from."""
    config = trainer.config

    def start() -> Origin:
        if begin is not None:
            start_from(trainer, load_start(begin))
        return origin

    def resume(path: Path) -> tuple[Progressed, Origin]:
        return Progressed(restore(trainer, load_checkpoint(path), origin)), origin

    def save(path: Path, done: Progressed, origin: Origin, *, to_go_on: bool) -> None:  # noqa: ARG001 - always is
        save_checkpoint(path, snapshot(trainer, done.step, origin))

    return Loop(
        "match",
        config,
        last_step=min(config.end_at or config.steps, config.steps),
        validate_every=config.validate_every,
        take_step=partial(train_step, trainer),
        validate=lambda _step: validate(trainer.average, val_clips, config.validate_frames),
        start=start,
        restore=resume,
        save=save,
        log_columns=LOG_COLUMNS,
        val_columns=VAL_COLUMNS,
        board=False,
    )


def make_trainer(config: MatchConfig, clips: list[LoadedClip]) -> MatchTrainer:
    """A trainer before its first step."""
    torch.manual_seed(config.seed)
    net = make_match_net(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = make_match_net(config)
    average.load_state_dict(net.state_dict())
    optimiser = torch.optim.AdamW(
        parameter_groups(net.parameters(), weight_decay=config.optimiser.weight_decay), lr=0.0
    )
    reach = net.reach if isinstance(net, TokenMatchNet) else Reach()
    sampler = Sampler(clips, config.data, seed=config.seed, steps=config.steps, reach=reach)
    return MatchTrainer(config, sampler, net, average.eval(), optimiser)


def train_step(trainer: MatchTrainer, step: int) -> dict[str, float]:
    """One step; everything random in it depends on (seed, step) alone."""
    began = perf_counter()
    config, optimiser = trainer.config, trainer.optimiser
    rate = rate_by_steps(step, config.steps, config.optimiser)
    set_rate(optimiser, rate)
    loss, gate = compute_loss(trainer, step)
    clip_norm = config.optimiser.clip_norm
    norm = descend(loss.total, trainer.net.parameters(), optimiser, clip_norm=clip_norm, step=step)
    update_average(trainer.average, trainer.net, ema=config.optimiser.ema, step=step)
    return {
        "total": loss.total.item(),
        "rows": loss.rows.item(),
        "columns": loss.columns.item(),
        "curve": loss.curve.item(),
        "null": loss.null.item(),
        "gate": gate.item(),
        "norm": norm,
        "rate": rate,
        "seconds": perf_counter() - began,
    }


def compute_loss(trainer: MatchTrainer, step: int) -> tuple[MatchLoss, Tensor]:
    """Loss of the batch of a step, and the mean gate of its video windows."""
    config = trainer.config
    rng = seed_step(config.seed, step)
    batch = augment_batch(trainer.sampler.batch(step), config.augment, rng)
    net = trainer.net.train()
    if isinstance(net, TokenMatchNet):
        out = net(batch.crops, batch.lips, batch.mel, batch.video_rows, batch.audio_steps)
    else:
        frames, points = video_windows(batch.crops, batch.lips, batch.video_rows)
        out = net(frames, points, audio_windows(batch.mel, batch.audio_steps))
    loss = match_loss(out, batch.validity, config.loss, curve_scale=net.curve_scale, rng=rng)
    return loss, out.video_gate.detach().mean()


def validate(net: MatchNet | TokenMatchNet, clips: list[LoadedClip], frames: int) -> Validation:
    """Quick figures on the first `frames` frames of val clips."""
    encoders = match_encoders(net)
    figures = group_figures((clip, score_clip(clip, encoders, max_frames=frames)) for clip in clips)
    rows = [{"group": group.group, "clips": group.clips, **group.percent} for group in figures]
    words = [
        f"{group.group} {group.percent.get('5', 0):.1f} / {group.percent.get('15', 0):.1f}"
        f" / {group.percent.get('clip', 0):.1f}"
        for group in figures
        if ":" not in group.group
    ]
    return Validation(rows, "K=5 / K=15 / clip: " + ", ".join(words))


def snapshot(trainer: MatchTrainer, step: int, origin: dict[str, str]) -> Checkpoint:
    return Checkpoint(
        trainer.config,
        step,
        trainer.net.state_dict(),
        trainer.average.state_dict(),
        trainer.optimiser.state_dict(),
        origin,
    )


def start_from(trainer: MatchTrainer, checkpoint: Checkpoint) -> None:
    """Begin a new run with the averaged weights of another.

    A compact network also starts from a window network: its video trunk is that network's video encoder. One
    with a fine trunk starts from one without: what that trunk says counts nothing at first.
    """
    ours, theirs = trainer.config.network, checkpoint.config.network
    weights = checkpoint.average
    if ours != theirs and theirs == WINDOW_NETWORK:
        trunk, size = "video_encoder.", len("video_encoder.")
        renamed = {f"{trunk}trunk.{key[size:]}": w for key, w in weights.items() if key.startswith(trunk)}
        weights = trainer.net.state_dict() | renamed
    elif (ours, theirs) == (FINE.name, EDGE.name):
        weights = widen(weights, trainer.net.state_dict())
    elif not same_weights(trainer.config, checkpoint.config):
        raise ConfigError("the checkpoint to start from has a model of other sizes")
    trainer.net.load_state_dict(weights)
    trainer.average.load_state_dict(weights)


def widen(weights: dict[str, Tensor], wider: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a network as those of a wider one, which gives the same: new columns are zero."""
    widened = dict(wider)
    for key, weight in weights.items():
        more = wider[key].shape[-1] - weight.shape[-1] if weight.ndim else 0
        widened[key] = F.pad(weight, (0, more)) if more else weight
    return widened


def restore(trainer: MatchTrainer, checkpoint: Checkpoint, origin: dict[str, str]) -> int:
    """Put a trainer where a checkpoint left off; returns the steps done."""
    if checkpoint.config != trainer.config:
        raise ConfigError("the checkpoint was made with another configuration")
    if checkpoint.provenance["cache_manifest_sha256"] != origin["cache_manifest_sha256"]:
        raise ConfigError("the checkpoint was made with another cache")
    if not checkpoint.optimiser:
        raise ConfigError("the checkpoint is an average: start from it, it cannot be resumed")
    trainer.net.load_state_dict(checkpoint.model)
    trainer.average.load_state_dict(checkpoint.average)
    trainer.optimiser.load_state_dict(checkpoint.optimiser)
    return checkpoint.step
