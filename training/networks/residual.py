"""Cross-modal encoders on the tokens of a trained matching: what they say is added to its cosine.

P: pairs; C clips, W video windows, A audio windows a clip; D: the matching's width. The matching does not
learn. What is added is `scale` times the cross-modal part's logit, and begins at zero.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avsync_cli.spec import WINDOW_FRAMES, WINDOW_MEL_STEPS
from training.networks.compact import Projection
from training.networks.token_match import TokenMatchNet, windows_of
from training.networks.vocalist import Behaviour, CrossModalScorer

_LAYERS = 4  # of each encoder, as in the published networks: relations name them


@dataclass(frozen=True)
class Windows:
    """What a matching makes of windows [...]: `tokens` [..., T * D], unit `embedding` [..., E] and `gate`."""

    tokens: Tensor
    embedding: Tensor
    gate: Tensor


class ResidualNet(CrossModalScorer):
    """The cross-modal part alone: it is what learns, and what a checkpoint holds."""

    def __init__(self, tokens_width: int, width: int, heads: int) -> None:
        super().__init__()
        is_same = width == tokens_width
        self.video_in: nn.Module = nn.Identity() if is_same else Projection(tokens_width, width)
        self.audio_in: nn.Module = nn.Identity() if is_same else Projection(tokens_width, width)
        self.add_scorer(width, heads, layers=_LAYERS)
        self.scale = nn.Parameter(torch.zeros(()))

    def relate(self, video_tokens: Tensor, audio_tokens: Tensor) -> Behaviour:
        """Tokens [P, 5, D] and [P, 16, D] of the matching -> the Behaviour."""
        return super().relate(self.video_in(video_tokens), self.audio_in(audio_tokens))


def video_windows_of(matching: TokenMatchNet, crops: Tensor, lips: Tensor, rows: Tensor) -> Windows:
    """Crops [C, F, 48, 96] and lips [C, F, 40, 3], windows that begin at `rows` [C, W]."""
    tokens = windows_of(matching.video_encoder(crops, lips.flatten(2)), rows, WINDOW_FRAMES)
    return _headed(matching.video_head, tokens)


def audio_windows_of(matching: TokenMatchNet, mel: Tensor, steps: Tensor) -> Windows:
    """Mel [C, T, 80], windows that begin at `steps` [C, A]."""
    tokens = windows_of(matching.audio_encoder(mel.mT.contiguous()), steps, WINDOW_MEL_STEPS)
    return _headed(matching.audio_head, tokens)


def _headed(head: nn.Module, tokens: Tensor) -> Windows:
    embedding, gate = head(tokens.flatten(0, 1))
    return Windows(tokens, embedding.unflatten(0, tokens.shape[:2]), gate.view(tokens.shape[:2]))


def relate_pairs(net: ResidualNet, video: Tensor, audio: Tensor) -> Behaviour:
    """The Behaviour of pairs of windows' tokens [..., 5 * D] and [..., 16 * D], in a row."""
    return net.relate(
        video.flatten(0, -2).unflatten(-1, (WINDOW_FRAMES, -1)),
        audio.flatten(0, -2).unflatten(-1, (WINDOW_MEL_STEPS, -1)),
    )


def cosine_scores(video: Windows, audio: Windows) -> Tensor:
    """gate * cosine of windows side by side [...]: the score that the residual is added to."""
    scores: Tensor = video.gate * torch.einsum("...e,...e->...", video.embedding, audio.embedding)
    return scores
