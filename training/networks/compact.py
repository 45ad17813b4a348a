"""VocaLiST's cross-modal encoders on cheap front-ends: `mtdvocalist-edge` and `vocalist-compact`.

B: windows, or 1 for a whole clip; F: frames; S: mel steps; D: width; r, s: reach beyond a window in frames
and in mel steps. A token is computed once per frame (or mel step) and shared by all windows that hold it;
it depends on r frames (s steps) on either side of its own and on nothing else: convolutions over time take
no padding, so a clip's ends are not written into the tokens and cannot tell which sound belongs to them.
The tokens of a window are 5 and 16, as in the published networks, so every relation has the same shape.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsync_cli.spec import MEL_BINS, WINDOW_FRAMES
from training.config import ModelConfig, require_least
from training.networks.vocalist import CrossModalScorer
from training.networks.window_match import VideoEncoder
from training.reach import Reach

REACH_FRAMES = WINDOW_FRAMES // 2  # a video token sees its frame and two on either side
REACH_MEL_STEPS = 6  # one for each of the audio encoder's convolutions


@dataclass(frozen=True)
class CompactDims:
    """Sizes of a network: `sizes` of its video trunk, `audio_widths` of its audio encoder's stages."""

    name: str
    width: int
    sizes: ModelConfig = field(default_factory=ModelConfig)
    audio_widths: tuple[int, int, int, int] = (32, 64, 96, 160)
    heads: int = 8
    layers: int = 4

    def __post_init__(self) -> None:
        require_least(1, width=self.width, heads=self.heads, layers=self.layers)
        require_least(1, audio_widths=min(self.audio_widths))
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"{self.name}: {self.width} is not even or not divisible by {self.heads} heads")


EDGE = CompactDims("mtdvocalist-edge", 200)
FINE = CompactDims("mtdvocalist-fine", 200, ModelConfig(fine_widths=(24, 48, 96, 128)))
COMPACT = CompactDims("vocalist-compact", 512)
COMPACT_NETWORKS = {dims.name: dims for dims in (EDGE, FINE, COMPACT)}


class CompactNet(CrossModalScorer):
    """Cheap front-ends, then the cross-modal encoders and the head of VocaLiST."""

    reach = Reach(REACH_FRAMES, REACH_MEL_STEPS)

    def __init__(self, dims: CompactDims) -> None:
        super().__init__()
        self.dims = dims
        self.video_encoder = VideoTokens(dims)
        self.audio_encoder = AudioTokens(dims)
        self.add_scorer(dims.width, dims.heads, layers=dims.layers)

    def encode_video(self, frames: Tensor, lips: Tensor) -> Tensor:
        """Frames [B, F, 48, 96] in 0..255 and lips [B, F, 120] -> tokens [B, F - 2r, D]."""
        tokens: Tensor = self.video_encoder(frames, lips)
        return tokens

    def encode_audio(self, mels: Tensor) -> Tensor:
        """Mels [B, 80, S] (bins x steps, -4..4) -> tokens [B, S - 2s, D]."""
        tokens: Tensor = self.audio_encoder(mels)
        return tokens


class VideoTokens(nn.Module):
    """A token for every frame that has `REACH_FRAMES` on either side: [B, F, 48, 96] -> [B, F - 2r, D]."""

    def __init__(self, dims: CompactDims) -> None:
        super().__init__()
        self.trunk = VideoEncoder(dims.sizes)
        self.project = Projection(self.trunk.features, dims.width)

    def forward(self, frames: Tensor, lips: Tensor) -> Tensor:
        clips, count = frames.shape[0], frames.shape[1] - 2 * REACH_FRAMES
        rows = torch.arange(count, device=frames.device).unsqueeze(1)
        rows = rows + torch.arange(WINDOW_FRAMES, device=frames.device)  # [F - 2r, 5]
        stacks = frames[:, rows].flatten(0, 1).to(lips.dtype)  # [B * (F - 2r), 5, 48, 96]
        features = self.trunk(stacks, lips[:, rows].flatten(0, 1))
        tokens: Tensor = self.project(features).unflatten(0, (clips, count))
        return tokens


class AudioTokens(nn.Module):
    """A token for every mel step that has `REACH_MEL_STEPS` on either side: [B, 80, S] -> [B, S - 2s, D]."""

    def __init__(self, dims: CompactDims) -> None:
        super().__init__()
        first, second, third, fourth = dims.audio_widths
        units = [
            TimeUnit(1, first, stride=2),  # 40 bins
            TimeUnit(first, second, stride=2),  # 20 bins
            TimeUnit(second, second, residual=True),
            TimeUnit(second, third, stride=2),  # 10 bins
            TimeUnit(third, third, residual=True),
            TimeUnit(third, fourth, stride=2),  # 5 bins
        ]
        if len(units) != REACH_MEL_STEPS:
            raise ValueError("the reach of an audio token is a step for every convolution")
        self.net = nn.Sequential(*units)
        self.project = Projection(fourth * MEL_BINS // 16, dims.width)

    def forward(self, mels: Tensor) -> Tensor:
        maps = self.net((mels / 2).unsqueeze(1).contiguous(memory_format=torch.channels_last))
        tokens: Tensor = self.project(maps.permute(0, 3, 1, 2).flatten(2))  # [B, S - 2s, C * 5]
        return tokens


class TimeUnit(nn.Module):
    """3 x 3 convolution without padding over time, batch norm, (+ input), ReLU: S steps -> S - 2."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, residual: bool = False) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, (stride, 1), (1, 0), bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.convolution(x))
        return F.relu(y + x[..., 1:-1] if self.residual else y)


class Projection(nn.Module):
    """Features [..., F] -> tokens [..., D] of norm about 1, as large as positions once multiplied by sqrt(D).

    They are not rectified, so no token's channel 0 is exactly 0 and every token gets its position
    (see `transformer.Positions`).
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, width)
        self.norm = nn.LayerNorm(width)
        nn.init.constant_(self.norm.weight, width**-0.5)

    def forward(self, features: Tensor) -> Tensor:
        tokens: Tensor = self.norm(self.linear(features))
        return tokens
