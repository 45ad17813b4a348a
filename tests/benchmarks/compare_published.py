"""What the published code's rules change in numbers: ours beside theirs on the recorded inputs.

python tests/benchmarks/compare_published.py ../shared/golden/published_rules.npz
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avsync_cli.mel import mel_spectrogram
from avsync_cli.spec import WINDOW_MEL_STEPS
from training.evaluation.protocol import LENGTHS, accuracy
from training.evaluation.published_protocol import hide_outside, published_accuracy
from training.losses.distillation import kd_batch_loss, kd_loss

Floats = NDArray[np.float32]


def print_protocol(recorded: dict[str, Floats]) -> None:
    """Accuracy over the recorded matrices by both rules, of all and of those of 30 windows and more."""
    matrices = [value[:, ::-1] for name, value in recorded.items() if name.startswith("scores_")]
    for words, least in (("all", 0), ("30 windows and more", 30)):
        chosen = [scores for scores in matrices if len(scores) >= least]
        for frames in LENGTHS:
            theirs = np.mean([published_accuracy(hide_outside(scores), frames) or 0.0 for scores in chosen])
            ours = np.mean([_ours(scores, frames) for scores in chosen])
            print(
                f"protocol, {len(chosen)} clips ({words}), K={frames}: published {100 * theirs:.2f}, "
                f"ours {100 * ours:.2f}, ours less published {100 * (ours - theirs):+.2f}"
            )


def _ours(scores: Floats, frames: int) -> float:
    """By our rule: what lies outside the clip is missing."""
    rows = np.arange(len(scores))[:, None] - np.arange(-15, 16)
    inside = (rows >= 0) & (rows < len(scores))
    return accuracy(np.where(inside, scores, np.nan).astype(np.float32), frames) or 0.0


def print_kd(recorded: dict[str, Floats]) -> None:
    """KD's value and gradient by both softmaxes."""
    values: list[float] = []
    gradients: list[Tensor] = []
    for loss in (kd_batch_loss, kd_loss):
        student = torch.from_numpy(recorded["kd_student"]).requires_grad_()
        value: Tensor = loss(student, torch.from_numpy(recorded["kd_teacher"]))
        gradients += torch.autograd.grad(value, student)
        values.append(value.item())
    cosine = torch.cosine_similarity(gradients[0], gradients[1], dim=0).item()
    print(f"KD: published {values[0]:.3f}, ours {values[1]:.3f}, cosine of the gradients {cosine:.2f}")


def print_mel(recorded: dict[str, Floats]) -> None:
    """The mel of each chunk alone beside that of the six one after another, cut."""
    chunks = recorded["chunks"]
    whole = mel_spectrogram(np.concatenate(chunks))
    steps = [slice(WINDOW_MEL_STEPS * n, WINDOW_MEL_STEPS * (n + 1)) for n in range(len(chunks))]
    apart = np.abs(np.stack([whole[part].T for part in steps]) - recorded["chunk_mels"])
    print(f"mel: ours and published differ by {apart.mean():.2f} in the mean, {apart.max():.2f} at most")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recorded", type=Path, help="published_rules.npz")
    with np.load(parser.parse_args().recorded) as file:
        arrays = dict(file)
    print_protocol(arrays)
    print_kd(arrays)
    print_mel(arrays)
