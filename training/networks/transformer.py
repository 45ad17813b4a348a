"""The cross-modal transformer of VocaLiST: its arithmetic and its names are those of the published weights.

B: pairs; Tq, Tk: query and source tokens; D: width; H: heads. Attention only crosses: a layer never sees
its own sequence, and the source is the same embedded input for every layer. Attribute names are keys of
the published state dicts (arXiv:2204.02090, arXiv:2210.15563), hence `self_attn` for cross-attention.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsync_cli.spec import WINDOW_MEL_STEPS

_MAX_TOKENS = WINDOW_MEL_STEPS  # the longest sequence is a window's audio
_FEED_FORWARD = 4  # times the width
_EMBEDDING_DROPOUT = 0.25
_RELU_DROPOUT = 0.1
_RESIDUAL_DROPOUT = 0.1
_LONGEST_PERIOD = 10_000.0  # of the sinusoids, in tokens / (2 pi)
_FORMAT_VERSION = 2.0  # what the published files hold under "version"


@dataclass(frozen=True)
class LayerBehaviour:
    """What one layer's attention did: `scores` [B, H, Tq, Tk] and `values` [B, H, Tk, D / H].

    Scores are scaled and before the softmax; a hidden source token has the score -inf.
    """

    scores: Tensor
    values: Tensor


@dataclass(frozen=True)
class EncoderBehaviour:
    """All layers of an encoder, and its output [B, Tq, D] after the last LayerNorm."""

    layers: tuple[LayerBehaviour, ...]
    output: Tensor


class CrossModalEncoder(nn.Module):
    """Query tokens [B, Tq, D] and source tokens [B, Tk, D] -> EncoderBehaviour."""

    version: Tensor

    def __init__(self, width: int, heads: int, *, layers: int) -> None:
        super().__init__()
        self.draws_apart = False  # whether dropout is drawn for keys and values apart, as published
        self.scale = math.sqrt(width)
        self.embed_positions = Positions(width)
        self.embedding_dropout = nn.Dropout(_EMBEDDING_DROPOUT)
        self.layers = nn.ModuleList(CrossModalLayer(width, heads) for _ in range(layers))
        self.layer_norm = nn.LayerNorm(width)
        self.register_buffer("version", torch.tensor([_FORMAT_VERSION]))

    def forward(self, query: Tensor, source: Tensor) -> EncoderBehaviour:
        x, keys = self.embed(query), self.embed(source)
        # Without dropout both would be the same numbers, and one projection serves both.
        values = self.embed(source) if self.draws_apart and self.training else None
        hidden = future_mask(x.shape[1], source.shape[1], device=x.device)
        behaviours = []
        for layer in self.layers:
            x, behaviour = layer(x, keys, hidden, values)
            behaviours.append(behaviour)
        return EncoderBehaviour(tuple(behaviours), self.layer_norm(x))

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens [B, T, D], scaled by sqrt(D) and with their positions added."""
        embedded: Tensor = self.embedding_dropout(self.scale * tokens + self.embed_positions(tokens))
        return embedded


class CrossModalLayer(nn.Module):
    """Pre-norm cross-attention and feed-forward: x [B, Tq, D] -> x [B, Tq, D] and its LayerBehaviour."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = CrossAttention(width, heads)
        self.fc1 = _linear(width, _FEED_FORWARD * width)
        self.fc2 = _linear(_FEED_FORWARD * width, width)
        self.layer_norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.relu_dropout = nn.Dropout(_RELU_DROPOUT)
        self.residual_dropout = nn.Dropout(_RESIDUAL_DROPOUT)

    def forward(
        self, x: Tensor, source: Tensor, hidden: Tensor, values: Tensor | None = None
    ) -> tuple[Tensor, LayerBehaviour]:
        attention_norm, feed_norm = self.layer_norms
        # One norm serves all sequences, as in the published networks.
        apart = None if values is None else attention_norm(values)
        attended, behaviour = self.self_attn(attention_norm(x), attention_norm(source), hidden, apart)
        x = x + self.residual_dropout(attended)
        fed = self.fc2(self.relu_dropout(F.relu(self.fc1(feed_norm(x)))))
        return x + self.residual_dropout(fed), behaviour


class CrossAttention(nn.Module):
    """Multi-head attention of x [B, Tq, D] to source [B, Tk, D]; `hidden` [Tq, Tk] entries do not count.

    Where `values` [B, Tk, D] are given, they are made of these, and keys alone of `source`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))  # rows: query, key, value
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = _linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(
        self, x: Tensor, source: Tensor, hidden: Tensor, values: Tensor | None = None
    ) -> tuple[Tensor, LayerBehaviour]:
        width = x.shape[-1]
        query_bias, source_bias = self.in_proj_bias.split([width, 2 * width])
        query_weight, source_weight = self.in_proj_weight.split([width, 2 * width])
        query = F.linear(x, query_weight, query_bias) * (width // self.heads) ** -0.5
        if values is None:
            key, values = F.linear(source, source_weight, source_bias).chunk(2, dim=-1)
        else:
            (key_weight, value_weight), (key_bias, value_bias) = source_weight.chunk(2), source_bias.chunk(2)
            key, values = F.linear(source, key_weight, key_bias), F.linear(values, value_weight, value_bias)
        query, key, values = (self._split(part) for part in (query, key, values))
        scores = (query @ key.mT).masked_fill(hidden, -torch.inf)  # [B, H, Tq, Tk]
        attended = (scores.softmax(dim=-1) @ values).transpose(1, 2).flatten(2)
        return self.out_proj(attended), LayerBehaviour(scores, values)

    def _split(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, H, T, D / H]."""
        parts: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return parts


class Positions(nn.Module):
    """Tokens [B, T, D] -> their positions [B, T, D]: zeros where a token's channel 0 is exactly 0.

    The published networks take such a token for padding. Tokens come out of a ReLU, so it happens often,
    and weights trained with it need it.
    """

    table: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("table", sinusoids(_MAX_TOKENS, width), persistent=False)
        self.register_buffer("_float_tensor", torch.zeros(1))  # holds nothing; the published files have it

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.where(tokens[..., :1] != 0, self.table[: tokens.shape[1]], 0.0)


def sinusoids(tokens: int, width: int) -> Tensor:
    """[tokens, width]: sines of all periods, then their cosines; token t stands at t + 1."""
    half = width // 2
    rates = torch.exp(torch.arange(half) * (-math.log(_LONGEST_PERIOD) / (half - 1)))
    angles = torch.arange(1, tokens + 1).unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def future_mask(queries: int, sources: int, *, device: torch.device | None = None) -> Tensor:
    """bool [Tq, Tk]: query i does not see source tokens from i + 1 + |Tk - Tq| on.

    It hides something only where there are more source tokens than queries.
    """
    everything = torch.ones(queries, sources, dtype=torch.bool, device=device)
    return everything.triu(1 + abs(sources - queries))


def _linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
