"""Scores of whole clips with shared tokens, against each pair cut out and put through its network alone."""

import numpy as np
import pytest
import torch
from recipes import PUBLISHED, STUDENT
from synthetic_cache import make_cache

from avsync_cli.spec import RANGE_FRAMES
from training.config import from_table
from training.data.clips import load_clips
from training.data.pairs import Pair, cut_pairs
from training.evaluation.score_clips import score_clip
from training.evaluation.torch_encoders import network_encoders
from training.loops.steps import behave
from training.networks.presets import make_network
from training.reach import Reach
from training.recipe import NetworkConfig

FRAMES = 44  # more windows than are scored at a time


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return load_clips(make_cache(tmp_path_factory.mktemp("cache"), clips=1, frames=FRAMES), split="train")[0]


@pytest.fixture(params=[STUDENT, PUBLISHED], ids=["compact", "published"])
def network(request):
    torch.manual_seed(0)
    network = make_network(from_table(NetworkConfig, request.param, where="test"))
    for module in network.modules():  # no score must come out right because tokens are about equal
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.normal_(module.bias)
    return network.eval()


def slow_scores(clip, network, ticks):
    """Pair by pair, where the network's whole reach lies inside the clip; NaN elsewhere."""
    r, s = network.reach.frames, network.reach.mel_steps
    scores = np.full((len(ticks), 31), np.nan, np.float32)
    for row, tick in enumerate(ticks):
        for column in range(31):
            sound = tick - (column - RANGE_FRAMES)
            step = 80 * sound // 25
            inside = r <= tick <= FRAMES - 5 - r and 0 <= sound <= FRAMES - 5
            if inside and step >= s and step + 16 + s <= len(clip.mel.mel):
                with torch.no_grad():
                    pair = cut_pairs([(clip, Pair(tick, sound))], Reach(r, s))
                    scores[row, column] = behave(network, pair).logits.item()
    return scores


def test_shared_tokens_score_as_each_pair_by_itself(clip, network):
    scores = score_clip(clip, network_encoders(network))
    assert scores.shape == (FRAMES - 4, 31)
    ticks = [0, 2, 20, 33, FRAMES - 7]
    expected = slow_scores(clip, network, ticks)
    known = np.isfinite(expected)
    assert known.sum() > 60
    assert np.allclose(scores[ticks][known], expected[known], atol=1e-4)
    assert np.ptp(expected[known]) > 1e-3
    # Every offset whose sound is in the clip has a score, at its ends as well.
    sounds = np.arange(FRAMES - 4)[:, None] - np.arange(-15, 16)
    assert np.array_equal(np.isfinite(scores), (sounds >= 0) & (sounds < FRAMES - 4))


def test_the_first_frames_of_a_clip_score_as_in_the_whole(clip, network):
    whole = score_clip(clip, network_encoders(network))
    part = score_clip(clip, network_encoders(network), max_frames=20)
    assert part.shape == (16, 31)
    known = np.isfinite(part)
    # Its windows' sound is there, and what lies beyond the cut is seen as far as the network reaches.
    assert known[:, RANGE_FRAMES].all()
    assert np.allclose(part[known], whole[:16][known], atol=1e-4)
