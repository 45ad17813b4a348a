"""The two encoders and their match: what training optimises and `export` turns into graphs.

B, A: video and audio windows; D: embedding width. The score of a pair is g(v) * cos(v, a): g says how
much a window can tell, so that closed mouths weigh little when scores are averaged over a clip.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsync_cli.spec import LIP_NUMBERS, WINDOW_FRAMES
from training.config import ModelConfig

_MIN_CONTRAST = 0.03  # of full scale: flat pictures are not blown up into noise
_GATE_BIAS = 0.5413  # softplus of it is 1: gates start at `gate_start`


class ConvUnit2d(nn.Module):
    """Convolution, batch norm, (+ input), ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 3,
        stride: int | tuple[int, int] = 1,
        padding: int = 1,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.convolution(x))
        return F.relu(y + x if self.residual else y)


class VideoEncoder(nn.Module):
    """Frames [B, 5, 48, 96] in 0..255 and lips [B, 5, 120] -> features [B, `features`]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        first, second, third = config.video_widths
        blocks = config.video_blocks
        self.picture = nn.Sequential(
            ConvUnit2d(WINDOW_FRAMES, first, kernel=8, stride=4, padding=2),  # [B, 32, 12, 24]
            *(ConvUnit2d(first, first, residual=True) for _ in range(blocks[0])),
            ConvUnit2d(first, second, stride=2),  # [B, 64, 6, 12]
            *(ConvUnit2d(second, second, residual=True) for _ in range(blocks[1])),
            ConvUnit2d(second, third, stride=2),  # [B, 128, 3, 6]
            *(ConvUnit2d(third, third, residual=True) for _ in range(blocks[2])),
            nn.Flatten(),
        )
        self.fine = make_fine_trunk(config.fine_widths)
        width = config.lips_width
        self.lips = nn.Sequential(
            nn.Flatten(),
            nn.Linear(WINDOW_FRAMES * LIP_NUMBERS, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
        )
        self.features = third * 3 * 6 + width + (config.fine_widths[3] * 3 * 6 if config.fine_widths else 0)

    def forward(self, frames: Tensor, lips: Tensor) -> Tensor:
        picture = frames / 255
        picture = picture - _mean_of_each(picture)
        contrast = _mean_of_each(picture.square())
        picture = picture * torch.rsqrt(contrast + _MIN_CONTRAST**2)
        picture = picture.contiguous(memory_format=torch.channels_last)
        parts = [self.picture(picture), self.lips(lips)]
        if self.fine is not None:
            parts.append(self.fine(picture))
        return torch.cat(parts, dim=1)


def make_fine_trunk(widths: tuple[int, ...]) -> nn.Sequential | None:
    """Pictures [B, 5, 48, 96] -> features [B, 18 * last width], by a stem that halves them; None for none."""
    if not widths:
        return None
    first, second, third, fourth = widths
    return nn.Sequential(
        ConvUnit2d(WINDOW_FRAMES, first, kernel=5, stride=2, padding=2),  # [B, 24, 24, 48]
        ConvUnit2d(first, second, stride=2),  # [B, 48, 12, 24]
        ConvUnit2d(second, second, residual=True),
        ConvUnit2d(second, third, stride=2),  # [B, 96, 6, 12]
        ConvUnit2d(third, third, residual=True),
        ConvUnit2d(third, fourth, stride=2),  # [B, 128, 3, 6]
        nn.Flatten(),
    )


def _mean_of_each(pictures: Tensor) -> Tensor:
    """Means [B, 1, 1, 1] of [B, 5, 48, 96], row by row first: ONNX Runtime sums one by one, and 23,040
    numbers in a row lose the last digits of the score."""
    return pictures.mean(dim=3, keepdim=True).mean(dim=(1, 2), keepdim=True)


class AudioEncoder(nn.Module):
    """Mels [A, 80, 16] (bins x steps, -4..4) -> features [A, `features`]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        first, second, third, fourth = config.audio_widths
        self.net = nn.Sequential(
            ConvUnit2d(1, first, stride=2),  # [A, 32, 40, 8]
            ConvUnit2d(first, second, stride=2),  # [A, 48, 20, 4]
            ConvUnit2d(second, second, residual=True),
            ConvUnit2d(second, third, stride=(2, 1)),  # [A, 80, 10, 4]
            ConvUnit2d(third, third, residual=True),
            ConvUnit2d(third, fourth, stride=2),  # [A, 128, 5, 2]
            nn.Flatten(),
        )
        self.features = fourth * 5 * 2

    def forward(self, mels: Tensor) -> Tensor:
        features: Tensor = self.net((mels / 2).unsqueeze(1).contiguous(memory_format=torch.channels_last))
        return features


class Head(nn.Module):
    """Features [B, F] -> unit embedding [B, D] and a positive gate [B]."""

    def __init__(self, features: int, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.embedding = nn.Linear(features, config.embedding)
        self.gate = nn.Linear(features, 1)
        self.gate_start = config.gate
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, _GATE_BIAS)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        features = self.dropout(features)
        gate = self.gate_start * F.softplus(self.gate(features)).squeeze(1)
        return F.normalize(self.embedding(features), dim=1), gate


@dataclass(frozen=True)
class Embedded:
    """Unit embeddings video [B, D], audio [A, D] and their gates [B], [A]."""

    video: Tensor
    audio: Tensor
    video_gate: Tensor
    audio_gate: Tensor


class MatchNet(nn.Module):
    """Both encoders with their heads; `curve_scale` belongs to the clip-level loss alone."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.video_encoder = VideoEncoder(config)
        self.audio_encoder = AudioEncoder(config)
        self.video_head = Head(self.video_encoder.features, config)
        self.audio_head = Head(self.audio_encoder.features, config)
        self.curve_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, frames: Tensor, lips: Tensor, mels: Tensor) -> Embedded:
        video, video_gate = self.video_head(self.video_encoder(frames, lips))
        audio, audio_gate = self.audio_head(self.audio_encoder(mels))
        return Embedded(video, audio, video_gate, audio_gate)

    def encode_video(self, frames: Tensor, lips: Tensor) -> Tensor:
        """What the artefact's video graph gives: g * unit embedding [B, D]."""
        video, gate = self.video_head(self.video_encoder(frames, lips))
        scaled: Tensor = video * gate.unsqueeze(1)
        return scaled

    def encode_audio(self, mels: Tensor) -> Tensor:
        """What the artefact's audio graph gives: unit embedding [A, D]."""
        audio: Tensor = self.audio_head(self.audio_encoder(mels))[0]
        return audio
