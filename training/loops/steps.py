"""One step of a recipe: micro-batches, their losses, one gradient, one update.

A micro-batch's pairs, augmentation and dropout depend on (seed, step, its number) alone, and a step's result
is a mean over its micro-batches. So several processes that share the micro-batches take the same steps as one
process that does them all.
"""

from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn

from training.data.pairs import PairBatch, PairSource
from training.loops.feed import Feed
from training.loops.optimise import clip_gradient, rate_by_epochs, set_rate, update_average
from training.loops.recipe_pairs import seed_of
from training.losses.distillation import Loss
from training.networks.compact import CompactNet
from training.networks.presets import Network, PublishedNet
from training.networks.transformer import EncoderBehaviour, LayerBehaviour
from training.networks.vocalist import Behaviour
from training.processes import Processes
from training.reach import Reach
from training.recipe import Recipe

AnyNetwork = PublishedNet | CompactNet


@dataclass(frozen=True)
class RecipeTrainer:
    """What changes from step to step, and what it is made from.

    `reach` is the wider one of student and teacher, `frozen` are modules of the student that do not learn.
    """

    recipe: Recipe
    source: PairSource
    student: AnyNetwork
    teacher: AnyNetwork | None
    method: nn.Module
    average: AnyNetwork | None
    optimiser: torch.optim.Optimizer
    frozen: tuple[nn.Module, ...]
    reach: Reach
    device: torch.device
    processes: Processes
    feed: Feed

    @property
    def steps_per_epoch(self) -> int:
        return self.source.epoch_pairs // self.recipe.data.batch

    @property
    def network(self) -> AnyNetwork:
        """The network to use: averaged where the recipe keeps an average."""
        return self.average or self.student


def take_step(trainer: RecipeTrainer, step: int) -> dict[str, float]:
    """One update; returns the row for the log. Raises ConfigError for a gradient that is not finite."""
    began = perf_counter()
    recipe, optimiser = trainer.recipe, trainer.optimiser
    rate = rate_by_epochs(step, trainer.steps_per_epoch, recipe.data.epochs, recipe.optimiser)
    set_rate(optimiser, rate)
    optimiser.zero_grad(set_to_none=True)
    losses = add_gradients(trainer, step)
    learned = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    trainer.processes.add_up([parameter.grad for parameter in learned if parameter.grad is not None])
    norm = clip_gradient(learned, recipe.optimiser.clip_norm, step=step)
    optimiser.step()
    if trainer.average is not None and recipe.optimiser.ema is not None:
        update_average(trainer.average, trainer.student, ema=recipe.optimiser.ema, step=step)
    about = {"rate": rate, "norm": norm, "seconds": perf_counter() - began}
    return {"epoch": step // trainer.steps_per_epoch} | losses | about


def add_gradients(trainer: RecipeTrainer, step: int) -> dict[str, float]:
    """Add up this process's share of the mean gradient; returns the mean losses over all processes.

    "waited" is for how many seconds this one waited for its pairs.
    """
    parts = trainer.recipe.data.micro_batches
    set_modes(trainer)
    statistics = NormStatistics(trainer.student)
    rows: list[dict[str, Tensor]] = []
    waited = 0.0
    for part in trainer.processes.share(parts):
        statistics.restore()
        asked = perf_counter()
        batch = trainer.feed.batch(step, part)
        waited += perf_counter() - asked
        loss = compute_loss(trainer, batch, step, part)
        statistics.collect()
        (loss.total / parts).backward()
        rows.append({"total": loss.total.detach()} | loss.parts)
    statistics.write_mean(parts, trainer.processes)
    means = {name: torch.stack([row[name] for row in rows]).sum().float() / parts for name in rows[0]}
    trainer.processes.add_up(list(means.values()))
    return {name: mean.item() for name, mean in means.items()} | {"waited": waited}


def compute_loss(trainer: RecipeTrainer, batch: PairBatch, step: int, part: int) -> Loss:
    """The loss of one micro-batch of a step."""
    recipe = trainer.recipe
    batch = batch.to(trainer.device)
    torch.manual_seed(seed_of(recipe, step, part))  # dropout draws from torch's own generator
    student = behave(trainer.student, batch, precision=recipe.optimiser.precision)
    teacher = student
    if trainer.teacher is not None and recipe.method.name != "BCE":
        with torch.no_grad():
            teacher = behave(trainer.teacher, batch, precision=recipe.optimiser.precision)
    loss: Loss = trainer.method(student, teacher, batch.labels)
    return loss


def behave(network: AnyNetwork, batch: PairBatch, *, precision: str = "fp32") -> Behaviour:
    """The behaviour of a network on pairs, in fp32 whatever precision it was computed in."""
    seen = batch.within(network.reach)
    if precision == "fp32":
        return _relate(network, seen)
    with torch.autocast(seen.labels.device.type, torch.bfloat16):
        behaviour = _relate(network, seen)
    return in_fp32(behaviour)


def _relate(network: Network, batch: PairBatch) -> Behaviour:
    video, audio = network.encode_video(batch.frames, batch.lips), network.encode_audio(batch.mels)
    return network.relate(video, audio)


def in_fp32(behaviour: Behaviour) -> Behaviour:
    """The same numbers as fp32, so that losses are computed in it."""

    def widened(encoder: EncoderBehaviour) -> EncoderBehaviour:
        layers = (LayerBehaviour(layer.scores.float(), layer.values.float()) for layer in encoder.layers)
        return EncoderBehaviour(tuple(layers), encoder.output.float())

    return Behaviour(
        behaviour.logits.float(),
        behaviour.video_tokens.float(),
        behaviour.audio_tokens.float(),
        widened(behaviour.av),
        widened(behaviour.va),
        widened(behaviour.mem),
        behaviour.pooled.float(),
    )


def set_modes(trainer: RecipeTrainer) -> None:
    """The student learns, but not its frozen modules; the teacher never does."""
    trainer.student.train()
    for module in trainer.frozen:
        module.eval()
    if trainer.teacher is not None:
        trainer.teacher.eval()


class NormStatistics:
    """The running statistics of a student's batch norms over the micro-batches of a step.

    Each micro-batch begins with those from before the step, and the step ends with the mean of what they
    made of them: in whatever order, and in however many processes, they are taken.
    """

    def __init__(self, student: nn.Module) -> None:
        norms = [
            module
            for module in student.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
        ]
        self._now = [buffer for norm in norms for buffer in norm.buffers()]
        self._before = [buffer.clone() for buffer in self._now]
        self._sums = [torch.zeros_like(buffer) for buffer in self._now]

    def restore(self) -> None:
        for now, before in zip(self._now, self._before, strict=True):
            now.copy_(before)

    def collect(self) -> None:
        for now, total in zip(self._now, self._sums, strict=True):
            total += now

    def write_mean(self, parts: int, processes: Processes) -> None:
        processes.add_up([total for total in self._sums if total.is_floating_point()])
        for now, before, total in zip(self._now, self._before, self._sums, strict=True):
            now.copy_(total / parts if total.is_floating_point() else before + 1)
