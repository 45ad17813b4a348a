"""`python -m training match`: train the two encoders by matching, on the CPU, resumable to the bit."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

from avsync_cli.errors import ConfigError
from training.augment import augment_video
from training.augment_mel import augment_mel
from training.cache import require_grey
from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.clips import LoadedClip, Sampler, audio_windows, load_clips, video_windows
from training.config import WINDOW_NETWORK, MatchConfig, OptimiserConfig, as_table
from training.encoders import MatchNet
from training.journal import Table, provenance_of, stop_requests
from training.matching import MatchLoss, match_loss
from training.optimise import cosine, parameter_groups, update_average
from training.progress import Progress
from training.token_match import TokenMatchNet, make_match_net
from training.tokens import match_encoders
from training.validate import group_figures, score_clip
from training.vocalist import Reach

CHECKPOINT = "last.pt"
LOG_COLUMNS = ("step", "total", "rows", "columns", "curve", "gate", "norm", "rate", "seconds")
VAL_COLUMNS = ("step", "group", "clips", "5", "15", "clip")


@dataclass(frozen=True)
class Trainer:
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
) -> bool:
    """Train into a run folder; False where a signal ended it before the last step (see --resume)."""
    cache = cache or Path(config.cache)
    last = min(config.end_at or config.steps, config.steps)
    torch.set_num_threads(config.threads)
    origin = provenance_of(cache)
    require_grey(cache)
    step = 0
    trainer = make_trainer(config, load_clips(cache, split="train"))
    if resume:
        step = restore(trainer, load_checkpoint(run / CHECKPOINT), origin)
    elif (run / CHECKPOINT).exists():
        raise ConfigError(f"{run}: already holds a run; give --resume or another folder")
    elif start is not None or config.start is not None:
        start_from(trainer, load_checkpoint(start or Path(config.start or "")))
    val_clips = load_clips(cache, split="val") if config.validate_every else []
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(json.dumps(as_table(config) | {"origin": origin}, indent=1) + "\n")
    log = Table(run / "log.csv", LOG_COLUMNS, keep_until=step)
    val_log = Table(run / "val.csv", VAL_COLUMNS, keep_until=step)
    with Progress("match", last, unit="steps", done=step) as progress, stop_requests() as stop:
        while step < last and not stop:
            row = train_step(trainer, step)
            step += 1
            if step % config.log_every == 0 or step == last:
                log.add({"step": step, **row})
            progress.advance(1, text=f"loss {row['total']:.3f}, {row['seconds'] * 1000:.0f} ms a step")
            if val_clips and (step % config.validate_every == 0 or step == last):
                progress.note(validate(trainer.average, val_clips, step, val_log, config.validate_frames))
            if step % config.checkpoint_every == 0 or step == last:
                save_checkpoint(run / CHECKPOINT, snapshot(trainer, step, origin))
        if stop:
            save_checkpoint(run / CHECKPOINT, snapshot(trainer, step, origin))
            progress.note(f"stopped after step {step}; --resume goes on from there")
    return step >= last


def make_trainer(config: MatchConfig, clips: list[LoadedClip]) -> Trainer:
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
    return Trainer(config, sampler, net, average.eval(), optimiser)


def train_step(trainer: Trainer, step: int) -> dict[str, float]:
    """One step; everything random in it depends on (seed, step) alone."""
    began = perf_counter()
    config, optimiser = trainer.config, trainer.optimiser
    rate = learning_rate(step, config.steps, config.optimiser)
    for group in optimiser.param_groups:
        group["lr"] = rate
    loss, gate = compute_loss(trainer, step)
    optimiser.zero_grad(set_to_none=True)
    loss.total.backward()
    norm = nn.utils.clip_grad_norm_(trainer.net.parameters(), config.optimiser.clip_norm)
    if not math.isfinite(float(norm)):
        raise ConfigError(f"step {step}: the gradient is not finite; lower the learning rate")
    optimiser.step()
    update_average(trainer.average, trainer.net, min(config.optimiser.ema, (1 + step) / (10 + step)))
    return {
        "total": loss.total.item(),
        "rows": loss.rows.item(),
        "columns": loss.columns.item(),
        "curve": loss.curve.item(),
        "gate": gate.item(),
        "norm": float(norm),
        "rate": rate,
        "seconds": perf_counter() - began,
    }


def compute_loss(trainer: Trainer, step: int) -> tuple[MatchLoss, Tensor]:
    """Loss of the batch of a step, and the mean gate of its video windows."""
    config = trainer.config
    seed = config.seed * 1_000_003 + step
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # dropout draws from torch's own generator
    batch = trainer.sampler.batch(step)
    crops, lips = augment_video(batch.crops, batch.lips, config.augment, rng)
    mel = augment_mel(batch.mel, config.augment, rng)
    net = trainer.net.train()
    if isinstance(net, TokenMatchNet):
        out = net(crops, lips, mel, batch)
    else:
        frames, points = video_windows(crops, lips, batch.video_rows)
        out = net(frames, points, audio_windows(mel, batch.audio_steps))
    loss = match_loss(out, batch.validity, config.loss, curve_scale=net.curve_scale, rng=rng)
    return loss, out.video_gate.detach().mean()


def learning_rate(step: int, steps: int, config: OptimiserConfig) -> float:
    """Linear warm-up, then a cosine down to `final_rate` of the peak."""
    if step < config.warm_up:
        return config.learning_rate * (step + 1) / config.warm_up
    done = (step - config.warm_up) / max(1, steps - config.warm_up)
    return config.learning_rate * cosine(done, final=config.final_rate)


def validate(
    net: MatchNet | TokenMatchNet, clips: list[LoadedClip], step: int, log: Table, frames: int
) -> str:
    """Quick figures on val clips into the log; returns the line to show."""
    encoders = match_encoders(net)
    figures = group_figures((clip, score_clip(clip, encoders, max_frames=frames)) for clip in clips)
    for group in figures:
        log.add({"step": step, "group": group.group, "clips": group.clips, **group.percent})
    words = [
        f"{group.group} {group.percent.get('5', 0):.1f} / {group.percent.get('15', 0):.1f}"
        f" / {group.percent.get('clip', 0):.1f}"
        for group in figures
        if ":" not in group.group
    ]
    return f"step {step}: K=5 / K=15 / clip: " + ", ".join(words)


def snapshot(trainer: Trainer, step: int, origin: dict[str, str]) -> Checkpoint:
    return Checkpoint(
        trainer.config,
        step,
        trainer.net.state_dict(),
        trainer.average.state_dict(),
        trainer.optimiser.state_dict(),
        origin,
    )


def start_from(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Begin a new run with the averaged weights of another.

    A compact network also starts from a window network: its video trunk is that network's video encoder.
    """
    ours, theirs = trainer.config.network, checkpoint.config.network
    weights = checkpoint.average
    if ours != theirs and theirs == WINDOW_NETWORK:
        trunk, size = "video_encoder.", len("video_encoder.")
        renamed = {f"{trunk}trunk.{key[size:]}": w for key, w in weights.items() if key.startswith(trunk)}
        weights = trainer.net.state_dict() | renamed
    elif not same_weights(trainer.config, checkpoint.config):
        raise ConfigError("the checkpoint to start from has a model of other sizes")
    trainer.net.load_state_dict(weights)
    trainer.average.load_state_dict(weights)


def same_weights(one: MatchConfig, other: MatchConfig) -> bool:
    """Whether the weights of one fit the other: the chance to drop has none, and gates scale theirs."""
    models = [replace(config.model, dropout=0.0) for config in (one, other)]
    return one.network == other.network and models[0] == models[1]


def restore(trainer: Trainer, checkpoint: Checkpoint, origin: dict[str, str]) -> int:
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
