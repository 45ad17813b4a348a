"""The two-stream baselines of Fig. 2: SyncNet and Perfect Match, one network and two ways to train it.

B: windows or pairs; C: clips; N: windows of a clip, and so candidates; D: width of an embedding. SyncNet is
Chung and Zisserman, "Out of time" (2016): a contrastive loss on pairs. Perfect Match is Chung, Chung and Kang
(2019): every video window chooses among N sounds. Both see the crops in grey, five frames as channels, and
nothing of the lips' geometry; both are scored by the distance of their embeddings.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from avsync_cli.spec import CROP_HEIGHT, CROP_WIDTH, MEL_BINS, WINDOW_FRAMES, WINDOW_MEL_STEPS

Floats = NDArray[np.float32]

_BATCH_WINDOWS = 256
_LUMA = (0.299, 0.587, 0.114)  # of RGB, ITU-R BT.601
_MIN_DISTANCE = 1e-2  # its inverse is the highest similarity, and a root has no gradient at 0


@dataclass(frozen=True)
class TwoStreamDims:
    """Sizes of a network: channels of the five stages of both streams, then two linear layers."""

    name: str
    video_widths: tuple[int, int, int, int, int]
    audio_widths: tuple[int, int, int, int, int]
    hidden: int
    embedding: int


# After the two streams of "Out of time", for our crops and mels, at the size stated for both: 13.6 M.
TWO_STREAM = TwoStreamDims("two-stream", (96, 256, 512, 512, 512), (64, 128, 256, 256, 256), 448, 256)
TWO_STREAM_SMALL = TwoStreamDims("two-stream-small", (8, 16, 16, 16, 16), (8, 8, 16, 16, 16), 32, 16)
TWO_STREAM_DIMS = {dims.name: dims for dims in (TWO_STREAM, TWO_STREAM_SMALL)}


class TwoStream(nn.Module):
    """A picture stream and a sound stream into one space, where what belongs together is close."""

    def __init__(self, dims: TwoStreamDims) -> None:
        super().__init__()
        self.dims = dims
        first, second, third, fourth, fifth = dims.video_widths
        self.video = nn.Sequential(
            *_conv(WINDOW_FRAMES, first, kernel=3),  # rows, columns: 48, 96
            nn.MaxPool2d(2),  # 24, 48
            *_conv(first, second, kernel=5, stride=2),  # 12, 24
            nn.MaxPool2d(2),  # 6, 12
            *_conv(second, third, kernel=3),
            *_conv(third, fourth, kernel=3),
            *_conv(fourth, fifth, kernel=3),
            nn.MaxPool2d(2),  # 3, 6
            *_head(fifth * (CROP_HEIGHT // 16) * (CROP_WIDTH // 16), dims),
        )
        first, second, third, fourth, fifth = dims.audio_widths
        self.audio = nn.Sequential(
            *_conv(1, first, kernel=3),  # mel bins, mel steps: 80, 16
            nn.MaxPool2d((2, 1)),  # 40, 16
            *_conv(first, second, kernel=3),
            nn.MaxPool2d(2),  # 20, 8
            *_conv(second, third, kernel=3),
            nn.MaxPool2d(2),  # 10, 4
            *_conv(third, fourth, kernel=3),
            *_conv(fourth, fifth, kernel=3),
            nn.MaxPool2d(2),  # 5, 2
            *_head(fifth * (MEL_BINS // 16) * (WINDOW_MEL_STEPS // 8), dims),
        )

    def encode_video(self, frames: Tensor) -> Tensor:
        """Frames in 0..255, grey [B, 5, 48, 96] or RGB [B, 5, 48, 96, 3] -> embeddings [B, D]."""
        grey = (
            frames.float() if frames.ndim == 4 else frames.float() @ torch.tensor(_LUMA, device=frames.device)
        )
        embeddings: Tensor = self.video(grey / 255)
        return embeddings

    def encode_audio(self, mels: Tensor) -> Tensor:
        """Mels [B, 80, 16] (bins x steps, -4..4) -> embeddings [B, D]."""
        embeddings: Tensor = self.audio(mels.unsqueeze(1))
        return embeddings


def contrastive_loss(video: Tensor, audio: Tensor, labels: Tensor, *, margin: float) -> Tensor:
    """SyncNet's loss of pairs [B, D] and labels [B], 1 for in sync: a scalar ("Out of time").

    Half the mean of d^2 where they belong together, of max(margin - d, 0)^2 where they do not.
    """
    distance = pair_distances(video, audio)
    far = F.relu(margin - distance).square()
    return 0.5 * (labels * distance.square() + (1 - labels) * far).mean()


def multiway_loss(video: Tensor, audio: Tensor) -> Tensor:
    """Perfect Match's loss of clips' windows [C, N, D]: a scalar. Sound i is that of video window i.

    Cross entropy of choosing it among the clip's N sounds by the inverse of the distance.
    """
    similarity = 1 / pair_distances(video.unsqueeze(2), audio.unsqueeze(1))  # [C, N, N]
    aim = torch.arange(video.shape[1], device=video.device).expand(similarity.shape[:2])
    return F.cross_entropy(similarity.flatten(0, 1), aim.flatten())


def pair_distances(video: Tensor, audio: Tensor) -> Tensor:
    """Euclidean distances [...] of embeddings [..., D], at least 0.01."""
    return (video - audio).square().sum(dim=-1).clamp(min=_MIN_DISTANCE**2).sqrt()


def _conv(inputs: int, outputs: int, *, kernel: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


def _head(features: int, dims: TwoStreamDims) -> tuple[nn.Module, ...]:
    return (
        nn.Flatten(),
        nn.Linear(features, dims.hidden, bias=False),
        nn.BatchNorm1d(dims.hidden),
        nn.ReLU(),
        nn.Linear(dims.hidden, dims.embedding),
    )
