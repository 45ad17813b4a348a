"""Graphs of every kind of network against torch on whole clips, their ends included."""

import numpy as np
import pytest
import torch
from colour_cache import make_colour_cache
from recipes import PUBLISHED, STUDENT
from synthetic_cache import make_cache
from test_export_rewrite import NORMS, SMALL, with_random_norms

from avsync_cli.model import load_student
from avsync_cli.spec import CROP_DEFINITION, FACE_CROP_DEFINITION
from export.student import export_student
from export.trained import Trained
from training.config import from_table
from training.data.clips import load_clips
from training.evaluation.score_clips import score_clip, student_encoders
from training.evaluation.torch_encoders import avst_encoders, match_encoders, network_encoders
from training.networks.avst import AVST_SMALL, Avst
from training.networks.compact import EDGE, CompactNet
from training.networks.presets import make_network
from training.networks.token_match import TokenMatchNet
from training.networks.window_match import MatchNet
from training.recipe import NetworkConfig

pytestmark = pytest.mark.slow  # the exporter takes seconds, a minute where the machine is busy


def tiny(table, **changes):
    table = table | {"dims": table["dims"] | {"layers": 1}} | changes
    return make_network(from_table(NetworkConfig, table, where="test"))


def made_net(kind):
    """A network with random weights, and the crops it takes."""
    torch.manual_seed(0)
    makers = {
        "window": (lambda: MatchNet(SMALL), CROP_DEFINITION),
        "token match": (lambda: TokenMatchNet(tiny(STUDENT).dims, SMALL), CROP_DEFINITION),
        "compact": (lambda: tiny(STUDENT), CROP_DEFINITION),
        "published, faces": (lambda: tiny(PUBLISHED, pixels="bgr1"), FACE_CROP_DEFINITION),
        "published, mouths": (lambda: tiny(PUBLISHED), CROP_DEFINITION),
        "avst": (lambda: Avst(AVST_SMALL), FACE_CROP_DEFINITION),
    }
    make, crop = makers[kind]
    return with_random_norms(make()), crop


def settle(net, clip):
    """Statistics of the norms from a clip, as after training: without them all windows look alike."""
    for module in net.modules():
        if isinstance(module, NORMS):
            module.reset_running_stats()
            module.momentum = None
    scores_by_torch(net.train(), clip)
    for module in net.modules():
        if isinstance(module, NORMS):  # channels that are dead in one clip must not blow up roundings
            module.running_var.clamp_(min=0.01)
    if hasattr(net, "fc") or hasattr(net, "net"):
        torch.nn.init.normal_(getattr(net, "net", net).classifier.weight)
    return net.eval()


def scores_by_torch(net, clip):
    if isinstance(net, Avst):
        return score_clip(clip, avst_encoders(net))
    matching = isinstance(net, MatchNet | TokenMatchNet)
    return score_clip(clip, match_encoders(net) if matching else network_encoders(net))


REPEATS = [pytest.mark.slow, pytest.mark.repeats]


@pytest.mark.parametrize(
    "kind",
    [
        "window",
        "token match",
        pytest.param("compact", marks=REPEATS),
        pytest.param("published, faces", marks=REPEATS),
        "published, mouths",
        pytest.param("avst", marks=REPEATS),
    ],
)
def test_onnx_equals_torch(tmp_path, kind):
    net, crop = made_net(kind)
    make = make_colour_cache if crop == FACE_CROP_DEFINITION else make_cache
    clip = load_clips(make(tmp_path / "cache", clips=3, frames=40), split="val")[0]
    net = settle(net, clip)
    student = load_student(export_student(Trained(net, crop, {}), tmp_path / "student"))
    expected = scores_by_torch(net, clip)
    scores = score_clip(clip, student_encoders(student))
    assert np.isfinite(expected).sum() > 500
    assert np.nanstd(expected) > 1e-2
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    # A window alone, and the exporter's own notes: paths of this machine have no place in a student.
    assert len(student.encode_video(clip.crops[:5], clip.lips[:5].astype(np.float32))) == 1
    for graph in ("video", "audio", "pair"):
        assert b"stack_trace" not in (tmp_path / "student" / f"{graph}.onnx").read_bytes()


@pytest.mark.slow
@pytest.mark.repeats
def test_tokens_whose_first_channel_is_zero_lose_their_position(tmp_path):
    net, crop = made_net("compact")
    student = load_student(export_student(Trained(net, crop, {}), tmp_path / "student"))
    torch.manual_seed(1)
    video, audio = torch.randn(7, 5, 16).relu(), torch.randn(7, 16, 16).relu()
    with torch.no_grad():
        expected = net.score_pairs(video, audio)
        with_all = net.score_pairs(video + 1e-12, audio + 1e-12)
    assert (expected - with_all).abs().max() > 1e-2
    found = student.score(video.flatten(1).numpy(), audio.flatten(1).numpy())
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.repeats
def test_edge_network_of_full_size(tmp_path):
    torch.manual_seed(0)
    net = with_random_norms(CompactNet(EDGE))
    clip = load_clips(make_cache(tmp_path / "cache", clips=3, frames=30), split="val")[0]
    student = load_student(export_student(Trained(net, CROP_DEFINITION, {}), tmp_path / "student"))
    expected = score_clip(clip, network_encoders(net))
    np.testing.assert_allclose(score_clip(clip, student_encoders(student)), expected, atol=1e-4)
    assert {path.name for path in (tmp_path / "student").iterdir()} == {
        "audio.onnx", "model.json", "pair.onnx", "video.onnx"
    }  # fmt: skip
