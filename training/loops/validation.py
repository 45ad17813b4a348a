"""What a validation measures: F1 on fixed pairs, and losses that are watched but not minimised (Fig. 4).

B: pairs; D, E: widths of student and teacher.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from training.data.pairs import PairBatch
from training.loops.steps import RecipeTrainer, behave
from training.losses.distillation import MTD, NMTD, PUBLISHED_HINT_WEIGHT, FitNets, bce_loss
from training.losses.methods import relation_options
from training.losses.relations import LAST_LAYER
from training.networks.presets import width_of
from training.recipe import Recipe

PUBLISHED_THRESHOLD = 0.5  # of the logit, in the published code: a probability of 0.62
_RIDGE = 1e-3  # of the inputs' mean energy: keeps the fit of few pairs finite


def validate(trainer: RecipeTrainer, batches: Sequence[PairBatch]) -> dict[str, float]:
    """F1 and accuracy at logit 0, BCE, and the watched losses, of the network to use.

    "observed/MTD" is the loss with the weights learned so far where the recipe trains MTD, else BCE and all
    relations with weight 1; "observed/Last-MTD" is BCE and the relations of the last layer.
    "observed/FitNets" is BCE and the hint with the best linear projection there is: it is fitted in closed
    form to the outputs of every second pair, and the hint measured on the others. Nothing of it reaches the
    student. "observed/FitNets-published" is the published loss: the hint is weighed by 100, and its
    projection leads from the teacher to the student and is, as nothing teaches it here, that of before the
    first step.
    """
    recipe = trainer.recipe
    counts, published = Counts(), Counts(threshold=PUBLISHED_THRESHOLD)
    sums: dict[str, float] = {}
    hint = HintFit()
    watched = watched_losses(trainer)
    network = trainer.network.eval()
    with torch.no_grad():
        for batch in (fixed.to(trainer.device) for fixed in batches):
            student = behave(network, batch, precision=recipe.optimiser.precision)
            counts.add(student.logits, batch.labels)
            published.add(student.logits, batch.labels)
            losses = {"bce": bce_loss(student.logits, batch.labels)}
            if trainer.teacher is not None and recipe.validation.observe:
                teacher = behave(trainer.teacher.eval(), batch, precision=recipe.optimiser.precision)
                for name, loss in watched.items():
                    losses[f"observed/{name}"] = loss(student, teacher, batch.labels).total
                if "FitNets" in recipe.validation.observe:
                    hint.add(student.mem.output, teacher.mem.output)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(batch.labels)
    row = {"f1": counts.f1, "accuracy": counts.accuracy}
    if recipe.validation.rule == "published":
        row["f1_published"] = published.weighted_f1
    row |= {name: total / counts.pairs for name, total in sums.items()}
    if "FitNets" in recipe.validation.observe:
        row["observed/FitNets"] = row["bce"] + hint.error()
    return row


def val_columns(recipe: Recipe) -> tuple[str, ...]:
    """The columns of the table of validations."""
    watched = (f"observed/{name}" for name in recipe.validation.observe)
    published = ("f1_published",) if recipe.validation.rule == "published" else ()
    return ("step", "epoch", "f1", "accuracy", *published, "bce", *watched)


def chosen_by(recipe: Recipe) -> str:
    """The figure of a validation that the best weights have highest."""
    return "f1_published" if recipe.validation.rule == "published" else "f1"


@dataclass
class Counts:
    """Answers at a logit: a pair is said to be in sync where its own is above."""

    threshold: float = 0.0
    hits: int = 0
    false_alarms: int = 0
    misses: int = 0
    pairs: int = 0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        said, is_so = logits > self.threshold, labels > 0.5
        self.hits += int((said & is_so).sum())
        self.false_alarms += int((said & ~is_so).sum())
        self.misses += int((~said & is_so).sum())
        self.pairs += len(labels)

    @property
    def f1(self) -> float:
        """2 hits / (2 hits + false alarms + misses); 0 where there is none of them."""
        return 2 * self.hits / max(2 * self.hits + self.false_alarms + self.misses, 1)

    @property
    def weighted_f1(self) -> float:
        """F1 of "in sync" and of "not in sync", each counted as often as there are such pairs."""
        wrong = self.false_alarms + self.misses
        in_sync = self.hits + self.misses
        right_not = self.pairs - self.hits - wrong
        other = 2 * right_not / max(2 * right_not + wrong, 1)
        return (in_sync * self.f1 + (self.pairs - in_sync) * other) / max(self.pairs, 1)

    @property
    def accuracy(self) -> float:
        return 1 - (self.false_alarms + self.misses) / self.pairs


@dataclass
class HintFit:
    """Least squares from a student's tokens [B, T, D] to a teacher's [B, T, E], from sums alone.

    `fitted` and `tried` hold X'X, X'Y and Y'Y (its trace) of the pairs to fit to and of those to measure on,
    and the number of numbers in Y.
    """

    fitted: list[Tensor] = field(default_factory=list)
    tried: list[Tensor] = field(default_factory=list)
    seen: int = 0

    def add(self, student: Tensor, teacher: Tensor) -> None:
        first = self.seen % 2
        self.seen += len(student)
        for place, sums in ((first, self.fitted), (1 - first, self.tried)):
            inputs, wanted = (t[place::2].flatten(0, 1).double().cpu() for t in (student, teacher))
            inputs = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=inputs.dtype)], dim=1)
            energy, numbers = wanted.square().sum(), torch.tensor(float(wanted.numel()))
            moments = [inputs.mT @ inputs, inputs.mT @ wanted, energy, numbers]
            sums[:] = [old + new for old, new in zip(sums, moments, strict=True)] if sums else moments

    def error(self) -> float:
        """Mean square error, per number, on the pairs that it was not fitted to (on its own if only one)."""
        squares, products, _, _ = self.fitted
        ridge = _RIDGE * squares.diagonal().mean() * torch.eye(len(squares), dtype=squares.dtype)
        weights = torch.linalg.solve(squares + ridge, products)  # [D + 1, E]
        tried = self.tried if float(self.tried[3]) else self.fitted
        squares, products, energy, numbers = tried
        error = energy - 2 * (weights * products).sum() + (weights * (squares @ weights)).sum()
        return float((error / numbers).clamp(min=0))


def untaught_hint(trainer: RecipeTrainer) -> nn.Module:
    """FitNets as published, with a projection that is the same at every validation of a run."""
    student = width_of(trainer.student)
    teacher = student if trainer.teacher is None else width_of(trainer.teacher)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trainer.recipe.seed)
        loss = FitNets(student, teacher, weight=PUBLISHED_HINT_WEIGHT, hint="to_student")
    return loss.to(trainer.device)


def watched_losses(trainer: RecipeTrainer) -> dict[str, nn.Module]:
    """The losses of relations that the recipe watches, on the trainer's device."""
    options, method = relation_options(trainer.recipe.method), trainer.method
    losses: dict[str, nn.Module] = {
        "MTD": method if isinstance(method, MTD) else NMTD("all", options).to(trainer.device),
        "Last-MTD": NMTD(LAST_LAYER, options).to(trainer.device),
        "FitNets-published": untaught_hint(trainer),
    }
    return {name: loss for name, loss in losses.items() if name in trainer.recipe.validation.observe}
