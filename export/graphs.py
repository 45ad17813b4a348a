"""The three graphs of a student, from each kind of network that has them (see `avsync_cli.model`).

N: frames; T: mel steps; V, A, P: video windows, audio windows, pairs; D: width; r, s: reach in frames and in
mel steps. Rows are flat: [V, 5 * D] and [A, 16 * D] where they are tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avsync_cli.contract import Layout
from avsync_cli.spec import CROP_DEFINITION, WINDOW_FRAMES, WINDOW_MEL_STEPS
from export.rewrite import folded, shifted_prenet
from training.networks.avst import Avst
from training.networks.compact import REACH_FRAMES, REACH_MEL_STEPS, AudioTokens, CompactNet, VideoTokens
from training.networks.presets import AnyPixels, PublishedNet, as_pixels, width_of
from training.networks.token_match import TokenMatchNet
from training.networks.vocalist import CrossModalScorer, VocaList
from training.networks.window_match import Head, MatchNet

AnyNet = MatchNet | TokenMatchNet | CompactNet | PublishedNet | Avst

# Windows that are encoded at a time.
_WINDOW_CHUNK = 32  # larger ones are no faster
_TOKEN_CHUNK = 128  # with 8 frames and 12 mel steps more on either side together
_PUBLISHED_CHUNK = 8  # vocalist: 120 MB of shifted frames


@dataclass(frozen=True)
class Graphs:
    """Modules to be exported, in evaluation mode, and what they take and give."""

    video: nn.Module
    audio: nn.Module
    pair: nn.Module
    layout: Layout


def make_graphs(net: AnyNet, *, crop: str = CROP_DEFINITION) -> Graphs:
    """The graphs of a network; `crop` says on which crops it was trained."""
    net = folded(net)
    video: nn.Module
    audio: nn.Module
    if isinstance(net, MatchNet):
        video, audio, pair = WindowVideo(net), WindowAudio(net), DotPair()
        width = net.video_head.embedding.out_features
        return Graphs(video, audio, pair, Layout(crop, 0, 0, _WINDOW_CHUNK, width, width))
    if isinstance(net, TokenMatchNet):
        video = TokenVideo(net.video_encoder, net.video_head)
        audio = TokenAudio(net.audio_encoder, net.audio_head)
        width = net.video_head.embedding.out_features
        layout = Layout(crop, REACH_FRAMES, REACH_MEL_STEPS, _TOKEN_CHUNK, width, width)
        return Graphs(video, audio, DotPair(), layout)
    if isinstance(net, Avst):
        tokens = WINDOW_FRAMES * net.dims.width, WINDOW_MEL_STEPS * net.dims.width
        video, audio = ShiftedVideo(net.video, "rgb1"), WindowTokens(net)
        return Graphs(video, audio, TokenPair(net), Layout(crop, 0, 0, _PUBLISHED_CHUNK, *tokens))
    tokens = WINDOW_FRAMES * width_of(net), WINDOW_MEL_STEPS * width_of(net)
    if isinstance(net, CompactNet):
        video, audio = TokenVideo(net.video_encoder), TokenAudio(net.audio_encoder)
        layout = Layout(crop, REACH_FRAMES, REACH_MEL_STEPS, _TOKEN_CHUNK, *tokens)
        return Graphs(video, audio, TokenPair(net), layout)
    layout = Layout(crop, 0, 0, _PUBLISHED_CHUNK, *tokens)
    video, audio = ShiftedVideo(net.net.vid_prenet, net.pixels), WindowTokens(net.net)
    return Graphs(video, audio, TokenPair(net.net), layout)


class WindowVideo(nn.Module):
    """frames [N, 48, 96], lips [N, 120] -> gate times embedding [N - 4, D]."""

    def __init__(self, net: MatchNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, frames: Tensor, lips: Tensor) -> Tensor:
        return self.net.encode_video(windows(frames), windows(lips))


class WindowAudio(nn.Module):
    """mel [T, 80], starts [A] -> embedding [A, D]."""

    def __init__(self, net: MatchNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, mel: Tensor, starts: Tensor) -> Tensor:
        return self.net.encode_audio(windows_at(mel, starts).mT)


class TokenVideo(nn.Module):
    """frames [N, 48, 96], lips [N, 120] -> tokens [N - 4 - 2r, 5 * D], or what a head makes of them."""

    def __init__(self, encoder: VideoTokens, head: Head | None = None) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, frames: Tensor, lips: Tensor) -> Tensor:
        # A token's reach is a window around it: what windows share is encoded once.
        tokens = self.encoder.project(self.encoder.trunk(windows(frames), windows(lips)))
        rows = windows(tokens).flatten(1)
        if self.head is None:
            return rows
        embedding, gate = self.head(rows)
        gated: Tensor = embedding * gate.unsqueeze(1)
        return gated


class TokenAudio(nn.Module):
    """mel [T, 80], starts [A] -> tokens [A, 16 * D], or what a head makes of them."""

    def __init__(self, encoder: AudioTokens, head: Head | None = None) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, mel: Tensor, starts: Tensor) -> Tensor:
        tokens = self.encoder(mel.mT.unsqueeze(0)).squeeze(0)  # [T - 2s, D]
        rows = windows_at(tokens, starts).flatten(1)
        if self.head is None:
            return rows
        embedding: Tensor = self.head(rows)[0]
        return embedding


class ShiftedVideo(nn.Module):
    """frames, grey [N, 48, 96] or RGB [N, 48, 96, 3], lips not looked at -> tokens [N - 4, 5 * D]."""

    def __init__(self, prenet: nn.Sequential, pixels: AnyPixels) -> None:
        super().__init__()
        self.prenet = shifted_prenet(prenet)
        self.pixels: AnyPixels = pixels

    def forward(self, frames: Tensor, lips: Tensor) -> Tensor:  # noqa: ARG002 - part of the contract
        colours = as_pixels(frames.unsqueeze(0), self.pixels).squeeze(0)  # [N, 3, 48, 96]
        tokens: Tensor = self.prenet(windows(colours))  # [N - 4, 5, D, 1, 1]
        return tokens.flatten(1)


class WindowTokens(nn.Module):
    """mel [T, 80], starts [A] -> tokens [A, 16 * D], each window by itself."""

    def __init__(self, net: VocaList | Avst) -> None:
        super().__init__()
        self.net = net

    def forward(self, mel: Tensor, starts: Tensor) -> Tensor:
        return self.net.encode_audio(windows_at(mel, starts).mT).flatten(1)


class DotPair(nn.Module):
    """video [P, D], audio [P, D] -> score [P]: gate times cosine, since video carries its gate."""

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:
        return (video * audio).sum(dim=1)


class TokenPair(nn.Module):
    """video [P, 5 * D], audio [P, 16 * D] -> score [P]: the logit of the cross-modal network."""

    def __init__(self, scorer: CrossModalScorer | Avst) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:
        return self.scorer.score_pairs(
            video.unflatten(1, (WINDOW_FRAMES, -1)), audio.unflatten(1, (WINDOW_MEL_STEPS, -1))
        )


def windows(rows: Tensor) -> Tensor:
    """All runs of 5 rows: [N, ...] -> [N - 4, 5, ...]."""
    count = rows.shape[0] - WINDOW_FRAMES + 1
    return torch.stack([rows[place : place + count] for place in range(WINDOW_FRAMES)], dim=1)


def windows_at(rows: Tensor, starts: Tensor) -> Tensor:
    """The runs of 16 rows that begin at `starts`: [T, D] -> [A, 16, D]."""
    index = starts.unsqueeze(1) + torch.arange(WINDOW_MEL_STEPS)
    runs: Tensor = rows.index_select(0, index.flatten()).unflatten(0, (-1, WINDOW_MEL_STEPS))
    return runs
