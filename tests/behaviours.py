"""Made-up behaviours of two networks of different widths, for tests of what compares them."""

import torch
from torch import Tensor

from training.networks.transformer import EncoderBehaviour, LayerBehaviour, future_mask
from training.networks.vocalist import Behaviour

PAIRS, HEADS = 3, 2
STUDENT_WIDTH, TEACHER_WIDTH = 6, 16


def made_up_behaviour(width: int, seed: int) -> Behaviour:
    """Numbers of the right shapes, as of a network in the midst of training; leaves that want gradients."""
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).requires_grad_()

    def encoder(queries: int, sources: int) -> EncoderBehaviour:
        hidden = future_mask(queries, sources)
        layers = tuple(
            LayerBehaviour(
                leaf(PAIRS, HEADS, queries, sources).masked_fill(hidden, -torch.inf),
                leaf(PAIRS, HEADS, sources, width // HEADS),
            )
            for _ in range(4)
        )
        return EncoderBehaviour(layers, leaf(PAIRS, queries, width))

    return Behaviour(
        logits=leaf(PAIRS),
        video_tokens=leaf(PAIRS, 5, width),
        audio_tokens=leaf(PAIRS, 16, width),
        av=encoder(16, 5),
        va=encoder(5, 16),
        mem=encoder(16, 5),
        pooled=leaf(PAIRS, width),
    )
