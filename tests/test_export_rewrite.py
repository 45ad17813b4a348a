"""Rewrites before export change nothing but the operators."""

import pytest
import torch
from recipes import PUBLISHED, STUDENT
from torch import nn

from export.graphs import windows, windows_at
from export.rewrite import ShiftedUnit, folded, shifted_prenet
from training.config import ModelConfig, from_table
from training.networks.presets import make_network
from training.networks.vocalist import ConvUnit, Stage
from training.networks.window_match import MatchNet
from training.recipe import NetworkConfig

NORMS = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
SMALL = ModelConfig(embedding=32, video_widths=(8, 8, 16), lips_width=16, audio_widths=(8, 8, 8, 16))


def with_random_norms(net):
    """Weights and statistics as after training, so that folding them matters."""
    for module in net.modules():
        if isinstance(module, NORMS):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
    return net.eval()


@pytest.fixture(params=["window", "compact", "published"])
def net(request):
    torch.manual_seed(0)
    if request.param == "window":
        return with_random_norms(MatchNet(SMALL))
    table = STUDENT if request.param == "compact" else PUBLISHED
    return with_random_norms(make_network(from_table(NetworkConfig, table, where="test")))


def test_folding_leaves_no_norm_and_the_same_numbers(net):
    flat = folded(net)
    assert not any(isinstance(module, NORMS) for module in flat.modules())
    lead = () if isinstance(net, MatchNet) else (1,)
    frames, lips = 255 * torch.rand(*lead, 9, 48, 96), torch.randn(*lead, 9, 120)
    if isinstance(net, MatchNet):
        frames, lips = windows(frames), windows(lips)
    elif not hasattr(net, "video_encoder"):
        frames, lips = frames[:, :5] / 255, lips[:, :5]
    mels = torch.randn(1, 80, 16) if isinstance(net, MatchNet) else torch.randn(1, 80, 28)
    with torch.no_grad():
        torch.testing.assert_close(
            flat.encode_video(frames, lips), net.encode_video(frames, lips), atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(flat.encode_audio(mels), net.encode_audio(mels), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "stage",
    [
        Stage(0, 7, padding=3),
        Stage(0, 5, stride=(1, 2, 1), padding=(1, 1, 2)),
        Stage(0, 3, stride=(2, 2, 1)),
        Stage(0, 3, padding=(0, 0, 1)),
        Stage(0, 1, padding=0),
    ],
)
@pytest.mark.parametrize("residual", [False, True])
def test_convolution_over_shifted_frames_is_the_one_over_time(stage, residual):
    torch.manual_seed(1)
    if residual and (stage.stride != 1 or stage.padding == (0, 0, 1)):
        pytest.skip("a residual unit keeps its size")
    unit = folded(nn.Sequential(with_random_norms(ConvUnit(4, 4, stage=stage, axes=3, residual=residual))))[0]
    frames = torch.randn(3, 4, 11, 14, 5)
    with torch.no_grad():
        expected = unit(frames)
        found = ShiftedUnit(unit)(frames.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
    assert (expected > 0).any()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_whole_published_video_encoder_is_rewritten_exactly():
    torch.manual_seed(2)
    net = with_random_norms(make_network(from_table(NetworkConfig, PUBLISHED, where="test"))).net
    frames = torch.rand(2, 5, 3, 48, 96)
    with torch.no_grad():
        expected = net.encode_video(frames)
        rewritten = shifted_prenet(folded(net).vid_prenet)
        found = rewritten(frames).flatten(2)
    assert not any(isinstance(module, nn.Conv3d) for module in rewritten.modules())
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_convolutions_that_shorten_time_are_refused():
    unit = folded(nn.Sequential(ConvUnit(2, 2, stage=Stage(0, 3, padding=0), axes=3)))[0]
    with pytest.raises(ValueError, match="number of frames"):
        ShiftedUnit(unit)


def test_windows_are_runs_of_rows():
    rows = torch.arange(40.0).view(20, 2)
    assert torch.equal(windows(rows), rows.unfold(0, 5, 1).mT)
    starts = torch.tensor([0, 3, 3, 4])
    expected = torch.stack([rows[start : start + 16] for start in starts])
    assert torch.equal(windows_at(rows, starts), expected)
