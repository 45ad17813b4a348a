"""AVST, the third baseline of Fig. 2: sound and picture in one transformer (Chen et al., arXiv:2112.04432).

B: pairs; D: width; 5 video and 16 audio tokens a window. As its text says, two convolutional encoders give
tokens of either kind, which with a classification token go through one transformer that lets all attend to
all; from the classification token comes the score, and training contrasts the true offset of a clip with
others (`offsets_loss`).

The rest is our choice, as the text leaves it open or as our inputs ask for it: the encoders' stages, five
pre-norm layers of eight heads, sinusoids for the places and a learned vector for the kind, and the sizes,
chosen to come to the 42.4 M parameters that Fig. 2 states.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsync_cli.spec import WINDOW_FRAMES, WINDOW_MEL_STEPS
from training.networks.transformer import CrossModalLayer, sinusoids
from training.networks.vocalist import Stage, stack_convolutions

_COLOURS = 3
_TOKENS = 1 + WINDOW_FRAMES + WINDOW_MEL_STEPS
_INITIAL = 0.02  # standard deviation of what is learned for the classification token and the kinds

_VIDEO_STAGES = (  # rows, columns, frames of the result
    Stage(0, 5, stride=(2, 2, 1), padding=2),  # 24, 48, 5
    Stage(1, 5, stride=(1, 2, 1), padding=2),  # 24, 24, 5
    Stage(2, 3, stride=(2, 2, 1)),  # 12, 12, 5
    Stage(3, 3, stride=(2, 2, 1)),  # 6, 6, 5
    Stage(4, 3, stride=(2, 2, 1)),  # 3, 3, 5
    Stage(4, 3, padding=(0, 0, 1)),  # 1, 1, 5
)
_AUDIO_STAGES = (  # mel bins, mel steps of the result
    Stage(0, 3, stride=(2, 1)),  # 40, 16
    Stage(1, 3, stride=(2, 1)),  # 20, 16
    Stage(2, 3, stride=(2, 1)),  # 10, 16
    Stage(3, 3, stride=(2, 1)),  # 5, 16
    Stage(4, 3, stride=(2, 1)),  # 3, 16
    Stage(4, 3, padding=(0, 1)),  # 1, 16
)


@dataclass(frozen=True)
class AvstDims:
    """Sizes of a network; the last of `channels` is its width."""

    name: str
    channels: tuple[int, int, int, int, int]
    heads: int
    layers: int

    @property
    def width(self) -> int:
        return self.channels[-1]


AVST = AvstDims("avst", (64, 128, 256, 512, 512), 8, 5)
AVST_SMALL = AvstDims("avst-small", (4, 4, 8, 8, 16), 2, 1)
AVST_DIMS = {dims.name: dims for dims in (AVST, AVST_SMALL)}


class Avst(nn.Module):
    """Says of a video window and an audio window how well they fit: a score, compared among offsets."""

    positions: Tensor
    everything: Tensor

    def __init__(self, dims: AvstDims) -> None:
        super().__init__()
        self.dims = dims
        self.video = stack_convolutions(_VIDEO_STAGES, dims.channels, inputs=_COLOURS, axes=3)
        self.audio = stack_convolutions(_AUDIO_STAGES, dims.channels, inputs=1, axes=2)
        self.kinds = nn.Parameter(_INITIAL * torch.randn(2, dims.width))  # of picture, of sound
        self.summary = nn.Parameter(_INITIAL * torch.randn(dims.width))  # the classification token
        self.layers = nn.ModuleList(CrossModalLayer(dims.width, dims.heads) for _ in range(dims.layers))
        self.norm = nn.LayerNorm(dims.width)
        self.head = nn.Linear(dims.width, 1)
        self.register_buffer("positions", sinusoids(WINDOW_MEL_STEPS, dims.width), persistent=False)
        hidden = torch.zeros(_TOKENS, _TOKENS, dtype=torch.bool)
        self.register_buffer("everything", hidden, persistent=False)  # nothing is hidden

    def encode_video(self, frames: Tensor) -> Tensor:
        """Frames in 0..255, grey [B, 5, 48, 96] or RGB [B, 5, 48, 96, 3] -> tokens [B, 5, D]."""
        colours = frames.unsqueeze(-1).expand(*frames.shape, _COLOURS) if frames.ndim == 4 else frames
        tokens: Tensor = self.video(colours.permute(0, 4, 2, 3, 1).float() / 255)  # [B, D, 1, 1, 5]
        return tokens.flatten(2).mT

    def encode_audio(self, mels: Tensor) -> Tensor:
        """Mels [B, 80, 16] (bins x steps, -4..4) -> tokens [B, 16, D]."""
        tokens: Tensor = self.audio(mels.unsqueeze(1))  # [B, D, 1, 16]
        return tokens.flatten(2).mT

    def score_pairs(self, video_tokens: Tensor, audio_tokens: Tensor) -> Tensor:
        """Tokens [B, 5, D] and [B, 16, D] of B pairs -> scores [B]."""
        video = video_tokens + self.positions[:WINDOW_FRAMES] + self.kinds[0]
        audio = audio_tokens + self.positions + self.kinds[1]
        summary = self.summary.expand(video_tokens.shape[0], 1, -1)
        x = torch.cat([summary, video, audio], dim=1)  # [B, 22, D]
        for layer in self.layers:
            x, _ = layer(x, x, self.everything)
        scores: Tensor = self.head(self.norm(x[:, 0])).squeeze(1)
        return scores


def offsets_loss(scores: Tensor, aim: Tensor) -> Tensor:
    """Cross entropy of choosing the true one among a window's N candidates: scores [C, N], aim [C]."""
    return F.cross_entropy(scores, aim)
