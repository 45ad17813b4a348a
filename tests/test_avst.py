"""AVST: the size that is stated, attention from everything to everything, a loss over a clip's offsets."""

import math

import pytest
import torch
from synthetic_cache import make_cache

from training.data.clips import load_clips
from training.data.pairs import Pair
from training.evaluation.score_clips import score_clip
from training.evaluation.torch_encoders import avst_encoders
from training.loops.baseline_pairs import cut_offsets
from training.networks.avst import AVST, AVST_SMALL, Avst, offsets_loss
from training.networks.presets import count_parameters

STATED = 42_400_000  # parameters, Fig. 2 of arXiv:2210.15563


def test_it_has_the_stated_size():
    assert abs(count_parameters(Avst(AVST)) / STATED - 1) < 0.05


def small():
    torch.manual_seed(0)
    return Avst(AVST_SMALL).eval()


def test_every_token_counts_and_so_does_its_place():
    net = small()
    video, audio = torch.randn(2, 5, 16, requires_grad=True), torch.randn(2, 16, 16, requires_grad=True)
    scores = net.score_pairs(video, audio)
    scores[0].backward()
    assert (video.grad[0].abs().sum(dim=1) > 0).all()
    assert (audio.grad[0].abs().sum(dim=1) > 0).all()
    assert not video.grad[1].any()  # pairs do not see each other
    with torch.no_grad():
        assert not torch.allclose(net.score_pairs(video.flip(1), audio), scores, atol=1e-5)
        assert not torch.allclose(net.score_pairs(video, audio.flip(1)), scores, atol=1e-5)


def test_grey_is_each_of_the_colours():
    net, grey = small(), torch.randint(0, 256, (2, 5, 48, 96), dtype=torch.uint8)
    rgb = grey.unsqueeze(-1).expand(-1, -1, -1, -1, 3)
    torch.testing.assert_close(net.encode_video(grey), net.encode_video(rgb))
    assert net.encode_video(grey).shape == (2, 5, 16)
    assert net.encode_audio(torch.zeros(3, 80, 16)).shape == (3, 16, 16)


def test_the_loss_is_that_of_choosing_the_true_offset():
    scores = torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 0.0]])
    chances = [math.e / (math.e + 2), 1 / (math.e**2 + 2)]
    expected = -sum(math.log(chance) for chance in chances) / 2
    assert offsets_loss(scores, torch.tensor([1, 2])).item() == pytest.approx(expected)


def test_a_window_is_set_beside_the_sounds_around_it(tmp_path):
    clip = load_clips(make_cache(tmp_path / "cache", clips=3, frames=40), split="train")[0]
    first, end = clip.run
    for tick in (first, first + 9, end - 1):
        batch = cut_offsets([(clip, Pair(tick, tick))], 6)
        assert (len(batch.frames), len(batch.mels)) == (1, 6)
        assert batch.labels.sum() == 1
        own = torch.from_numpy(clip.mel.windows()[tick - clip.mel.first_tick]).float()
        assert torch.equal(batch.mels[batch.labels.argmax()], own)


def test_the_protocol_s_scores_are_the_network_s(tmp_path):
    clip = load_clips(make_cache(tmp_path / "cache", clips=3, frames=30), split="val")[0]
    net = small()
    scores = score_clip(clip, avst_encoders(net))
    sound = torch.from_numpy(clip.mel.windows()).float()
    with torch.no_grad():
        video = net.encode_video(torch.from_numpy(clip.crops[None, 4:9]))
        audio = net.encode_audio(sound[clip.first_tick + 4 - clip.mel.first_tick][None])
        assert scores[4, 15] == pytest.approx(net.score_pairs(video, audio).item(), abs=1e-5)
