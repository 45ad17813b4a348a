"""VocaLiST and MTDVocaLiST: one network, two sizes, with the keys and the numbers of the published weights.

B: windows or pairs; D: width; 5 video and 16 audio tokens a window. VocaLiST is arXiv:2204.02090,
MTDVocaLiST arXiv:2210.15563. `VocaList(dims).state_dict()` has the keys of the authors' files, so that
`{"state_dict": model.state_dict()}` is a file of theirs and `weights.loading.load_reference` reads one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import require_least
from training.networks.transformer import CrossModalEncoder, EncoderBehaviour

_COLOURS = 3
_LAYERS: Mapping[int, tuple[Callable[..., nn.Module], Callable[[int], nn.Module]]] = {
    2: (nn.Conv2d, nn.BatchNorm2d),
    3: (nn.Conv3d, nn.BatchNorm3d),
}  # by the number of axes


@dataclass(frozen=True)
class Dims:
    """Sizes of a network; `channels` are those of the five stages of both convolutional encoders."""

    name: str
    width: int
    channels: tuple[int, int, int, int, int]
    heads: int = 8
    layers: int = 4

    def __post_init__(self) -> None:
        require_least(1, channels=min(self.channels), heads=self.heads, layers=self.layers)
        if self.channels[-1] != self.width:
            raise ValueError(
                f"{self.name}: the last stage has {self.channels[-1]} channels, not {self.width}"
            )
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"{self.name}: {self.width} is not even or not divisible by {self.heads} heads")


VOCALIST = Dims("vocalist", 512, (32, 64, 128, 256, 512))  # frames: BGR in 0..1
MTDVOCALIST = Dims("mtdvocalist", 200, (16, 32, 64, 128, 200))  # frames: RGB in 0..255, as its teacher's


@dataclass(frozen=True)
class Stage:
    """A convolution to `channels[channel]`, then `residuals` residual ones of 3 x 3 (x 3)."""

    channel: int
    kernel: int
    stride: int | tuple[int, ...] = 1
    padding: int | tuple[int, ...] = 1
    residuals: int = 0


_VIDEO_STAGES = (  # rows, columns, frames of the result
    Stage(0, 7, padding=3),  # 48, 96, 5
    Stage(1, 5, stride=(1, 2, 1), padding=(1, 1, 2), residuals=2),  # 46, 47, 5
    Stage(2, 3, stride=(2, 2, 1), residuals=3),  # 23, 24, 5
    Stage(3, 3, stride=(2, 2, 1), residuals=2),  # 12, 12, 5
    Stage(4, 3, stride=(2, 2, 1), residuals=2),  # 6, 6, 5
    Stage(4, 3, stride=(2, 2, 1)),  # 3, 3, 5
    Stage(4, 3, padding=(0, 0, 1)),  # 1, 1, 5
    Stage(4, 1, padding=0),  # 1, 1, 5
)
_AUDIO_STAGES = (  # mel bins, mel steps of the result
    Stage(0, 3, residuals=2),  # 80, 16
    Stage(1, 3, stride=(3, 1), residuals=2),  # 27, 16
    Stage(2, 3, stride=(3, 1), residuals=2),  # 9, 16
    Stage(3, 3, stride=(3, 1), residuals=2),  # 3, 16
    Stage(4, 3, padding=(0, 1)),  # 1, 16
    Stage(4, 1, padding=0),  # 1, 16
)


@dataclass(frozen=True)
class Behaviour:
    """All that distillation looks at, of B pairs.

    `logits` [B], `video_tokens` [B, 5, D], `audio_tokens` [B, 16, D], the encoders `av` (audio asks video),
    `va` (video asks audio) and `mem` (fusion: av asks va), and `pooled` [B, D], the head's input.
    """

    logits: Tensor
    video_tokens: Tensor
    audio_tokens: Tensor
    av: EncoderBehaviour
    va: EncoderBehaviour
    mem: EncoderBehaviour
    pooled: Tensor


class CrossModalScorer(nn.Module):
    """The three cross-modal encoders and the head, whatever the tokens come from."""

    av_transformer: nn.Module
    va_transformer: nn.Module
    mem_transformer: nn.Module
    fc: nn.Module
    classifier: nn.Module

    def add_scorer(self, width: int, heads: int, *, layers: int) -> None:
        """The encoders and the head, behind what gives the tokens: so weights are drawn and named."""
        self.av_transformer = CrossModalEncoder(width, heads, layers=layers)
        self.va_transformer = CrossModalEncoder(width, heads, layers=layers)
        self.mem_transformer = CrossModalEncoder(width, heads, layers=layers)
        self.fc = nn.Linear(width, width)
        self.classifier = nn.Linear(width, 1)

    def score_pairs(self, video_tokens: Tensor, audio_tokens: Tensor) -> Tensor:
        """Tokens [B, 5, D] and [B, 16, D] of B pairs -> logits [B]."""
        return self.relate(video_tokens, audio_tokens).logits

    def relate(self, video_tokens: Tensor, audio_tokens: Tensor) -> Behaviour:
        """Tokens [B, 5, D] and [B, 16, D] of B pairs -> their Behaviour."""
        av = self.av_transformer(audio_tokens, video_tokens)
        va = self.va_transformer(video_tokens, audio_tokens)
        mem = self.mem_transformer(av.output, va.output)
        pooled = mem.output.amax(dim=1)
        logits = self.classifier(torch.tanh(self.fc(pooled))).squeeze(1)
        return Behaviour(logits, video_tokens, audio_tokens, av, va, mem, pooled)


class VocaList(CrossModalScorer):
    """Says of a video window and an audio window whether they belong together: a logit, > 0 for in sync."""

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.dims = dims
        self.vid_prenet = stack_convolutions(_VIDEO_STAGES, dims.channels, inputs=_COLOURS, axes=3)
        self.aud_prenet = stack_convolutions(_AUDIO_STAGES, dims.channels, inputs=1, axes=2)
        self.add_scorer(dims.width, dims.heads, layers=dims.layers)

    def forward(self, frames: Tensor, mels: Tensor, *, with_behaviour: bool = False) -> Tensor | Behaviour:
        """Frames [B, 5, 3, 48, 96] and mels [B, 80, 16] -> logits [B], or the whole Behaviour."""
        behaviour = self.relate(self.encode_video(frames), self.encode_audio(mels))
        return behaviour if with_behaviour else behaviour.logits

    def encode_video(self, frames: Tensor) -> Tensor:
        """Frames [B, 5, 3, 48, 96], lower halves of faces in the scale of `dims` -> tokens [B, 5, D]."""
        tokens: Tensor = self.vid_prenet(frames.permute(0, 2, 3, 4, 1))  # [B, D, 1, 1, 5]
        return tokens.flatten(2).mT

    def encode_audio(self, mels: Tensor) -> Tensor:
        """Mels [B, 80, 16] (bins x steps, -4..4) -> tokens [B, 16, D]."""
        tokens: Tensor = self.aud_prenet(mels.unsqueeze(1))  # [B, D, 1, 16]
        return tokens.flatten(2).mT


class ConvUnit(nn.Module):
    """Convolution, batch norm, (+ input), ReLU over 2 or 3 axes."""

    def __init__(self, inputs: int, outputs: int, *, stage: Stage, axes: int, residual: bool = False) -> None:
        super().__init__()
        convolution, norm = _LAYERS[axes]
        self.conv_block = nn.Sequential(
            convolution(inputs, outputs, stage.kernel, stage.stride, stage.padding), norm(outputs)
        )
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_block(x)
        return F.relu(y + x if self.residual else y)


def stack_convolutions(
    stages: tuple[Stage, ...], channels: tuple[int, ...], *, inputs: int, axes: int
) -> nn.Sequential:
    units = []
    for stage in stages:
        outputs = channels[stage.channel]
        units.append(ConvUnit(inputs, outputs, stage=stage, axes=axes))
        same = Stage(stage.channel, 3)
        units.extend(
            ConvUnit(outputs, outputs, stage=same, axes=axes, residual=True) for _ in range(stage.residuals)
        )
        inputs = outputs
    return nn.Sequential(*units)
