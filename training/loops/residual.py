"""`python -m training residual`: train a cross-modal part on a matching's tokens, by softmax or by MTD too.

C clips, R windows of a run, K candidate offsets, the right one first; A audio windows a clip.
"""

import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from avsync_cli.errors import ConfigError
from avsync_cli.spec import CANDIDATES, RANGE_FRAMES
from training.data.augment_batch import augment_batch
from training.data.cache import require_grey, sha256_of
from training.data.clips import LoadedClip, Sampler, Validity, load_clips
from training.data.provenance import provenance_of
from training.evaluation.score_clips import group_figures, score_clip
from training.evaluation.torch_encoders import match_encoders, residual_encoders
from training.loops.loop import Loop, Origin, Progressed, Validation, run_loop
from training.loops.optimise import (
    descend,
    parameter_groups,
    rate_by_steps,
    seed_step,
    set_rate,
    update_average,
)
from training.losses.distillation import MTD
from training.losses.residual import run_loss
from training.networks.residual import (
    ResidualNet,
    Windows,
    audio_windows_of,
    cosine_scores,
    relate_pairs,
    video_windows_of,
)
from training.networks.token_match import TokenMatchNet
from training.residual_recipe import ResidualConfig
from training.weights.match_checkpoint import BUNDLED, averaged_net, load_start
from training.weights.residual_checkpoint import (
    ResidualCheckpoint,
    averaged_residual,
    load_residual,
    make_residual,
    save_residual,
)

LOG_COLUMNS = ("step", "total", "rows", "curve", "alone", "cosine", "cad", "vr", "norm", "rate", "seconds")
VAL_COLUMNS = ("step", "scores", "group", "clips", "5", "7", "9", "11", "13", "15", "clip")


@dataclass(frozen=True)
class ResidualTrainer:
    """What changes from step to step, and what it is made from."""

    config: ResidualConfig
    sampler: Sampler
    matching: TokenMatchNet
    net: ResidualNet
    average: ResidualNet
    loss: MTD
    teacher: ResidualNet | None
    optimiser: torch.optim.Optimizer


@dataclass(frozen=True)
class Drawn:
    """Runs of windows and their candidates: video [C, R, ...], audio [C, R, K, ...], present [C, R, K] and
    how likely each candidate is the right one, [C, K], not normalised."""

    video: Windows
    audio: Windows
    present: Tensor
    target: Tensor


def train(
    config: ResidualConfig,
    run: Path,
    *,
    cache: Path | None = None,
    resume: bool = False,
    track: str | None = None,
) -> bool:
    """Train into a run folder; False where a signal ended it before the last step (see --resume)."""
    torch.set_num_threads(config.threads)
    cache = cache or Path(config.cache)
    require_grey(cache)
    origin = provenance_of(cache) | hashes_of(config)
    trainer = make_trainer(config, load_clips(cache, split="train"))
    val_clips = load_clips(cache, split="val") if config.validate_every else []
    return run_loop(replace(make_loop(trainer, val_clips, origin=origin), track=track), run, resume=resume)


def hashes_of(config: ResidualConfig) -> dict[str, str]:
    """The hashes of the weights that a run builds on."""
    matching = BUNDLED if config.matching == "bundled" else Path(config.matching)
    hashes = {"matching_sha256": sha256_of(matching)}
    return hashes if config.teacher is None else hashes | {"teacher_sha256": sha256_of(Path(config.teacher))}


def make_loop(trainer: ResidualTrainer, val_clips: list[LoadedClip], *, origin: dict[str, str]) -> Loop:
    """What a residual run brings to the loop."""
    config = trainer.config

    def resume(path: Path) -> tuple[Progressed, Origin]:
        return Progressed(restore(trainer, load_residual(path), origin)), origin

    def save(path: Path, done: Progressed, origin: Origin, *, to_go_on: bool) -> None:  # noqa: ARG001 - always is
        save_residual(path, snapshot(trainer, done.step, origin))

    return Loop(
        "residual",
        config,
        last_step=config.steps,
        validate_every=config.validate_every,
        take_step=partial(train_step, trainer),
        validate=lambda _step: validate(trainer.matching, trainer.average, val_clips, config.validate_frames),
        start=lambda: origin,
        restore=resume,
        save=save,
        log_columns=LOG_COLUMNS,
        val_columns=VAL_COLUMNS,
        board=False,
    )


def make_trainer(config: ResidualConfig, clips: list[LoadedClip]) -> ResidualTrainer:
    """A trainer before its first step. Raises ConfigError or ModelError."""
    matching = open_matching(config)
    torch.manual_seed(config.seed)
    net = make_residual(config, tokens_width(matching))
    teacher = None if config.teacher is None else load_teacher(config, matching)
    loss = MTD(config.weighting)
    learned = [*net.parameters(), *(loss.parameters() if teacher is not None else ())]
    groups = parameter_groups(learned, weight_decay=config.optimiser.weight_decay)
    sampler = Sampler(clips, config.data, seed=config.seed, steps=config.steps, reach=matching.reach)
    average = copy.deepcopy(net).eval()
    return ResidualTrainer(
        config, sampler, matching, net, average, loss, teacher, torch.optim.AdamW(groups, lr=0.0)
    )


def open_matching(config: ResidualConfig) -> TokenMatchNet:
    """The matching whose tokens are taken; it does not learn. Raises ConfigError or ModelError."""
    matching = averaged_net(load_start(Path(config.matching)))
    if not isinstance(matching, TokenMatchNet):
        raise ConfigError(f"{config.matching}: has no tokens; a residual needs a compact network's")
    return matching.requires_grad_(False)


def tokens_width(matching: TokenMatchNet) -> int:
    """D."""
    return matching.video_encoder.project.linear.out_features


def load_teacher(config: ResidualConfig, matching: TokenMatchNet) -> ResidualNet:
    """The teacher, on the same tokens. Raises ConfigError or ModelError."""
    checkpoint = load_residual(Path(str(config.teacher)))
    own = hashes_of(config)["matching_sha256"]
    if checkpoint.tokens_width != tokens_width(matching) or checkpoint.origin["matching_sha256"] != own:
        raise ConfigError(f"{config.teacher}: was trained on the tokens of another matching")
    if checkpoint.config.heads != config.heads:
        raise ConfigError(f"{config.teacher}: has {checkpoint.config.heads} heads, not {config.heads}")
    return averaged_residual(checkpoint)


def train_step(trainer: ResidualTrainer, step: int) -> dict[str, float]:
    """One step; everything random in it depends on (seed, step) alone."""
    began = perf_counter()
    config, optimiser = trainer.config, trainer.optimiser
    rate = rate_by_steps(step, config.steps, config.optimiser)
    set_rate(optimiser, rate)
    row, total = compute_loss(trainer, step)
    learned = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    norm = descend(total, learned, optimiser, clip_norm=config.optimiser.clip_norm, step=step)
    update_average(trainer.average, trainer.net, ema=config.optimiser.ema, step=step)
    about = {"norm": norm, "rate": rate, "seconds": perf_counter() - began}
    return {"total": total.item()} | {name: part.item() for name, part in row.items()} | about


def compute_loss(trainer: ResidualTrainer, step: int) -> tuple[dict[str, Tensor], Tensor]:
    """The parts of a step's loss, for the log ("cosine": the rows' without the residual), and what is
    minimised."""
    config = trainer.config
    drawn = draw(trainer, step)
    pairs = drawn.video.tokens.unsqueeze(2).expand(-1, -1, config.candidates, -1)
    student = relate_pairs(trainer.net.train(), pairs, drawn.audio.tokens)
    video = Windows(*(part.unsqueeze(2) for part in vars(drawn.video).values()))
    cosine = cosine_scores(video, drawn.audio)  # [C, R, K]
    scale = float(trainer.matching.curve_scale)
    loss_of = partial(run_loss, present=drawn.present, target=drawn.target, curve=config.curve, scale=scale)
    logits = student.logits.view_as(cosine)
    rows, curve = loss_of(cosine + trainer.net.scale * logits)
    alone, alone_curve = loss_of(logits)
    parts = {"rows": rows, "curve": curve, "alone": alone, "cosine": loss_of(cosine)[0]}
    task = rows + curve + config.alone * (alone + alone_curve)
    if trainer.teacher is None:
        return parts, task
    with torch.no_grad():
        teacher = relate_pairs(trainer.teacher, pairs, drawn.audio.tokens)
    relations = trainer.loss.compare(student, teacher)
    parts |= {"cad": relations.cad.sum(), "vr": relations.vr.sum()}
    return parts, trainer.loss.weigh(task, relations)


@torch.no_grad()
def draw(trainer: ResidualTrainer, step: int) -> Drawn:
    """The runs and candidates of a step, as the matching sees them."""
    config, matching = trainer.config, trainer.matching
    rng = seed_step(config.seed, step)
    batch = augment_batch(trainer.sampler.batch(step), config.augment, rng)
    video = video_windows_of(matching, batch.crops, batch.lips, batch.video_rows)
    audio = audio_windows_of(matching, batch.mel, batch.audio_steps)
    rows, leads = draw_rows(batch.validity, config, rng)
    return choose(video, audio, batch.validity, rows=rows, leads=leads, neighbour=config.neighbour)


def draw_rows(validity: Validity, config: ResidualConfig, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """The windows of each clip's run [C, R], real ones if there are enough, and the offsets of its candidates
    in frames [C, K]: 0 first, and each once."""
    real = validity.video
    first, room = real.int().argmax(1), (real.sum(1) - config.run_windows).clamp(min=0)
    begin = first + (torch.rand(len(real), generator=rng) * (room + 1)).long()
    begin = begin.clamp(max=real.shape[1] - config.run_windows)
    others = torch.cat([torch.arange(-RANGE_FRAMES, 0), torch.arange(1, RANGE_FRAMES + 1)])
    order = torch.rand(len(real), CANDIDATES - 1, generator=rng).argsort(1)[:, : config.candidates - 1]
    leads = torch.cat([torch.zeros(len(real), 1, dtype=torch.long), others[order]], 1)
    return begin.unsqueeze(1) + torch.arange(config.run_windows), leads


def choose(
    video: Windows, audio: Windows, validity: Validity, *, rows: Tensor, leads: Tensor, neighbour: float
) -> Drawn:
    """The windows `rows` [C, R], and the sound that lies `leads` [C, K] frames from theirs."""
    clip = torch.arange(len(rows)).unsqueeze(1)
    places = rows.unsqueeze(2) + validity.context + leads.unsqueeze(1)  # [C, R, K]
    inside = (places >= 0) & (places < audio.gate.shape[1])
    places = places.clamp(0, audio.gate.shape[1] - 1)
    sounds = (part[clip.unsqueeze(2), places] for part in vars(audio).values())
    present = inside & validity.audio[clip.unsqueeze(2), places] & validity.video[clip, rows].unsqueeze(2)
    beside = torch.where(leads.abs() == 1, neighbour, 0.0)
    target = torch.where(leads == 0, 1 - 2 * neighbour, beside)
    return Drawn(
        Windows(*(part[clip, rows] for part in vars(video).values())), Windows(*sounds), present, target
    )


def validate(matching: TokenMatchNet, net: ResidualNet, clips: list[LoadedClip], frames: int) -> Validation:
    """Figures on the first `frames` frames of val clips, with the residual and without it."""
    rows, words = [], []
    for name, encoders in (("cosine", match_encoders(matching)), ("both", residual_encoders(matching, net))):
        figures = group_figures(
            ((clip, score_clip(clip, encoders, max_frames=frames)) for clip in clips), with_all=True
        )
        rows += [
            {"scores": name, "group": each.group, "clips": each.clips, **each.percent} for each in figures
        ]
        words += [
            f"{name} {each.group} {each.percent.get('5', 0):.1f} / {each.percent.get('15', 0):.1f}"
            for each in figures
            if ":" not in each.group
        ]
    return Validation(rows, "K=5 / K=15: " + ", ".join(words))


def snapshot(trainer: ResidualTrainer, step: int, origin: dict[str, str]) -> ResidualCheckpoint:
    return ResidualCheckpoint(
        trainer.config,
        step,
        tokens_width(trainer.matching),
        trainer.net.state_dict(),
        trainer.average.state_dict(),
        trainer.loss.state_dict(),
        trainer.optimiser.state_dict(),
        origin,
    )


def restore(trainer: ResidualTrainer, checkpoint: ResidualCheckpoint, origin: dict[str, str]) -> int:
    """Put a trainer where a checkpoint left off; returns the steps done. Raises ConfigError."""
    if checkpoint.config != trainer.config:
        raise ConfigError("the checkpoint was made with another configuration")
    for key in ("cache_manifest_sha256", "matching_sha256", "teacher_sha256"):
        if checkpoint.origin.get(key) != origin.get(key):
            raise ConfigError(f"the checkpoint was made with another {key.partition('_')[0]}")
    trainer.net.load_state_dict(checkpoint.model)
    trainer.average.load_state_dict(checkpoint.average)
    trainer.loss.load_state_dict(checkpoint.loss)
    trainer.optimiser.load_state_dict(checkpoint.optimiser)
    return checkpoint.step
