"""The two-stream baselines: their losses by hand and by slow loops, their sizes, and what a run leaves."""

import math

import numpy as np
import pytest
import torch

from training.evaluation.torch_encoders import score_embeddings
from training.networks.two_stream import (
    TWO_STREAM,
    TWO_STREAM_SMALL,
    TwoStream,
    contrastive_loss,
    multiway_loss,
    pair_distances,
)


def test_contrastive_loss_by_hand():
    """Distances 5, 5 and 13 at margin 10; the second and the third do not belong together."""
    video = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    audio = torch.tensor([[3.0, 4.0], [4.0, 5.0], [5.0, 12.0]])
    loss = contrastive_loss(video, audio, torch.tensor([1.0, 0.0, 0.0]), margin=10.0)
    assert loss.item() == pytest.approx((5**2 + (10 - 5) ** 2 + 0) / 2 / 3)


def test_contrastive_loss_pulls_together_and_pushes_apart_up_to_the_margin():
    video = torch.tensor([[0.0], [0.0], [0.0]], requires_grad=True)
    audio = torch.tensor([[2.0], [2.0], [30.0]])
    contrastive_loss(video, audio, torch.tensor([1.0, 0.0, 0.0]), margin=10.0).backward()
    # A step goes against the gradient: towards 2, away from 2, and nowhere.
    assert video.grad.squeeze(1).tolist() == pytest.approx([-2 / 3, 8 / 3, 0])


def test_multiway_loss_by_hand():
    """On a line: distances 1 and 2 from the first window to the sounds, 4 and 1 from the second."""
    video, audio = torch.tensor([[[0.0], [3.0]]]), torch.tensor([[[-1.0], [2.0]]])
    first = -math.log(math.exp(1 / 1) / (math.exp(1 / 1) + math.exp(1 / 2)))
    second = -math.log(math.exp(1 / 1) / (math.exp(1 / 1) + math.exp(1 / 4)))
    assert multiway_loss(video, audio).item() == pytest.approx((first + second) / 2)


def test_multiway_loss_against_a_slow_loop():
    rng = np.random.default_rng(0)
    video, audio = rng.standard_normal((2, 3, 5, 4))
    losses = []
    for clip in range(3):
        for window in range(5):
            similar = [1 / math.dist(video[clip, window], audio[clip, sound]) for sound in range(5)]
            losses.append(math.log(sum(math.exp(s) for s in similar)) - similar[window])
    loss = multiway_loss(torch.from_numpy(video), torch.from_numpy(audio))
    assert loss.item() == pytest.approx(np.mean(losses))


def test_embeddings_that_coincide_have_finite_losses_and_gradients():
    video = torch.zeros(1, 3, 4, requires_grad=True)
    loss = multiway_loss(video, torch.zeros(1, 3, 4))
    loss = loss + contrastive_loss(video[0], torch.zeros(3, 4), torch.tensor([1.0, 0.0, 1.0]), margin=1.0)
    loss.backward()
    assert loss.isfinite()
    assert video.grad.isfinite().all()


def test_the_closer_a_pair_the_higher_its_score():
    video, audio = np.zeros((3, 2), np.float32), np.array([[3, 4], [0, 1], [6, 8]], np.float32)
    assert score_embeddings(video, audio).tolist() == [-5, -1, -10]
    distances = pair_distances(torch.from_numpy(video), torch.from_numpy(audio))
    assert distances.tolist() == [5, 1, 10]


def test_the_published_size():
    parameters = sum(parameter.numel() for parameter in TwoStream(TWO_STREAM).parameters())
    assert parameters == pytest.approx(13.6e6, rel=0.01)


@pytest.mark.parametrize("dims", [TWO_STREAM, TWO_STREAM_SMALL])
def test_every_weight_counts_and_every_input_is_seen(dims):
    torch.manual_seed(0)
    net = TwoStream(dims)
    frames = torch.randint(0, 256, (4, 5, 48, 96), dtype=torch.uint8).float().requires_grad_()
    mels = torch.randn(4, 80, 16, requires_grad=True)
    video, audio = net.encode_video(frames), net.encode_audio(mels)
    assert video.shape == audio.shape == (4, dims.embedding)
    pair_distances(video, audio).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []
    assert (frames.grad.abs().sum(dim=(0, 2, 3)) > 0).all()
    assert (frames.grad.abs().sum(dim=(0, 1)) > 0).float().mean() > 0.9
    assert (mels.grad.abs().sum(dim=0) > 0).float().mean() > 0.9


def test_evaluation_takes_each_window_for_itself():
    torch.manual_seed(0)
    net = TwoStream(TWO_STREAM_SMALL).eval()
    frames = torch.randint(0, 256, (6, 5, 48, 96), dtype=torch.uint8)
    with torch.no_grad():
        alone = torch.cat([net.encode_video(frame.unsqueeze(0)) for frame in frames])
        torch.testing.assert_close(net.encode_video(frames), alone)


def test_a_grey_picture_in_colour_is_that_picture():
    torch.manual_seed(0)
    net = TwoStream(TWO_STREAM_SMALL).eval()
    grey = torch.randint(0, 256, (2, 5, 48, 96), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(
            net.encode_video(grey.unsqueeze(-1).expand(-1, -1, -1, -1, 3)), net.encode_video(grey)
        )
