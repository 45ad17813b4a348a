"""The matching losses against numbers worked by hand and against plain loops."""

import math

import numpy as np
import pytest
import torch

from avsync_cli.spec import RANGE_FRAMES
from training.config import LossConfig, ModelConfig
from training.data.clips import Validity
from training.losses.matching import (
    curve_loss,
    diagonal_curve,
    match_loss,
    matching_loss,
    null_loss,
    random_runs,
    soft_targets,
)
from training.networks.window_match import Embedded, Head, MatchNet


def every(*shape):
    return torch.ones(shape, dtype=torch.bool)


def test_matching_loss_of_a_worked_example():
    # Two windows, two sounds; without neighbours each row's loss is log(1 + exp(-margin)).
    logits = torch.tensor([[[2.0, 0.0], [1.0, 4.0]]])
    loss = matching_loss(logits, every(1, 2), every(1, 2), shift=0, neighbour=0.0)
    assert float(loss) == pytest.approx((math.log1p(math.exp(-2)) + math.log1p(math.exp(-3))) / 2)
    # With .15 on the only neighbour the target is (.7, .15) / .85, so its share costs the margin.
    soft = matching_loss(logits, every(1, 2), every(1, 2), shift=0, neighbour=0.15)
    share = 0.15 / 0.85
    assert float(soft) == pytest.approx(float(loss) + share * (2 + 3) / 2, rel=1e-5)


def test_invalid_candidates_and_queries_change_nothing():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 3)
    whole = matching_loss(logits, every(1, 3), every(1, 3), shift=0, neighbour=0.15)
    padded = torch.full((1, 5, 5), 100.0)
    padded[:, :3, :3] = logits
    valid = torch.tensor([[True, True, True, False, False]])
    assert torch.equal(matching_loss(padded, valid, valid, shift=0, neighbour=0.15), whole)


def test_targets_follow_the_shift_and_are_cut_at_the_edges():
    targets = soft_targets(2, 5, shift=2, neighbour=0.15)
    expected = [[0, 0.15, 0.7, 0.15, 0], [0, 0, 0.15, 0.7, 0.15]]
    assert torch.allclose(targets, torch.tensor(expected))
    assert torch.allclose(soft_targets(1, 3, shift=0, neighbour=0.15), torch.tensor([[0.7, 0.15, 0.0]]))


def loop_curve(logits, runs, audio_valid, context):
    """The slow way: for each offset the mean over the run's windows that have their partner."""
    curves = np.full((len(logits), 31), np.nan)
    for clip in range(len(logits)):
        for column in range(31):
            values = []
            for window in range(logits.shape[1]):
                partner = window + context + column - RANGE_FRAMES
                if runs[clip, window] and 0 <= partner < logits.shape[2] and audio_valid[clip, partner]:
                    values.append(float(logits[clip, window, partner]))
            if 2 * len(values) >= int(runs[clip].sum()):
                curves[clip, column] = np.mean(values)
    return curves


@pytest.mark.parametrize("context", [0, 3])
def test_diagonal_curve_equals_a_loop(context):
    rng = torch.Generator().manual_seed(context)
    logits = torch.randn(3, 9, 9 + 2 * context, generator=rng)
    video, audio = every(3, 9), every(3, 9 + 2 * context)
    video[1, 6:] = False
    audio[1, 8:] = False
    runs = random_runs(video, 3, rng=rng)
    curve, present = diagonal_curve(logits, runs, Validity(video, audio, context))
    expected = loop_curve(logits, runs, audio, context)
    assert np.array_equal(present.numpy(), np.isfinite(expected))
    assert np.allclose(curve[present].numpy(), expected[np.isfinite(expected)], atol=1e-6)


def test_runs_are_consecutive_valid_and_long_enough():
    rng = torch.Generator().manual_seed(0)
    valid = every(200, 12)
    valid[::2, 7:] = False
    valid[::5, 2:] = False
    runs = random_runs(valid, 5, rng=rng)
    assert not (runs & ~valid).any()
    lengths = runs.sum(1)
    assert (lengths >= torch.minimum(valid.sum(1), torch.tensor(5))).all()
    assert set(lengths[valid.sum(1) == 12].tolist()) == set(range(5, 13))
    starts = (runs[:, 1:].int() - runs[:, :-1].int()).clamp(min=0).sum(1) + runs[:, 0].int()
    assert (starts == 1).all()


def test_curve_loss_of_a_flat_curve_is_the_log_of_its_offsets():
    present = every(1, 31)
    present[:, :5] = False
    assert float(curve_loss(torch.zeros(1, 31), present, neighbour=0.15)) == pytest.approx(math.log(26))


def test_a_null_candidate_competes_with_every_offset():
    loss = curve_loss(torch.zeros(1, 31), every(1, 31), neighbour=0.15, null=torch.zeros(1, 1))
    assert float(loss) == pytest.approx(math.log(32))


def test_null_loss_of_a_worked_example():
    # Two of 31 offsets present, both at 1; "none of these" at 2: log(1 + 2 / e).
    present = torch.zeros(1, 31, dtype=torch.bool)
    present[:, 10:12] = True
    loss = null_loss([(torch.ones(1, 31), present)], torch.full((1, 1), 2.0))
    assert float(loss) == pytest.approx(math.log1p(2 * math.exp(-1)))


def test_the_sound_of_another_clip_competes_with_the_own():
    """Two clips of one run each: whoever fits the other's sound as well as the own is told apart worse."""
    torch.manual_seed(0)
    windows = 12
    rows = torch.nn.functional.normalize(torch.randn(2, windows, 64), dim=2)
    gates = torch.full((2 * windows,), 12.0)
    validity = Validity(every(2, windows), every(2, windows), 0)

    def loss_of(video, audio):
        out = Embedded(video.flatten(0, 1), audio.flatten(0, 1), gates, gates)
        rng = torch.Generator().manual_seed(0)
        config = LossConfig(others=1, null_score=6.0)
        return match_loss(out, validity, config, curve_scale=torch.tensor(2.0), rng=rng)

    apart = loss_of(rows, rows)
    same = loss_of(torch.stack([rows[0], rows[0]]), torch.stack([rows[0], rows[0]]))
    # Whoever has two that fit equally well pays about the logarithm of two more.
    assert 0.5 < float(same.rows - apart.rows) < 0.9
    assert 0.5 < float(same.columns - apart.columns) < 0.9
    assert float(apart.null) < 0.1 < float(same.null)
    # Alone in its batch, a clip has nobody to compete with.
    alone = match_loss(
        Embedded(rows[0], rows[0], gates[:windows], gates[:windows]),
        Validity(every(1, windows), every(1, windows), 0),
        LossConfig(others=3),
        curve_scale=torch.tensor(2.0),
        rng=torch.Generator().manual_seed(0),
    )
    assert float(alone.null) == 0.0


def embedded(offset, gate):
    """Windows whose sound lies `offset` windows late, with orthogonal embeddings."""
    eye = torch.eye(12)
    return Embedded(eye, eye.roll(offset, 0), torch.full((12,), gate), torch.full((12,), gate))


def test_loss_prefers_the_true_offset_and_a_gate_that_trusts_it():
    validity = Validity(every(1, 12), every(1, 12), 0)

    def total(offset, gate):
        out = embedded(offset, gate)
        rng = torch.Generator().manual_seed(0)
        return match_loss(out, validity, LossConfig(neighbour=0.0), curve_scale=torch.tensor(1.0), rng=rng)

    right, wrong = total(0, 10.0), total(4, 10.0)
    assert float(right.rows) < 0.01 < 5 < float(wrong.rows)
    assert float(right.columns) < 0.01 < 5 < float(wrong.columns)
    assert float(right.curve) < 0.01 < 5 < float(wrong.curve)
    assert float(total(4, 0.1).total) < float(wrong.total)  # an unsure window loses less when wrong
    assert float(right.total) == pytest.approx(float(right.rows + right.columns + 0.5 * right.curve))


def test_gates_are_positive_and_embeddings_of_unit_length():
    torch.manual_seed(0)
    head = Head(20, ModelConfig(embedding=8))
    torch.nn.init.normal_(head.gate.weight, std=0.3)
    embedding, gate = head.eval()(torch.randn(50, 20))
    assert (gate > 0).all()
    assert torch.allclose(embedding.norm(dim=1), torch.ones(50))


def test_artefact_score_is_the_gated_cosine():
    torch.manual_seed(0)
    net = MatchNet(ModelConfig(video_widths=(8, 8, 8), audio_widths=(8, 8, 8, 8))).eval()
    frames, lips, mels = 255 * torch.rand(3, 5, 48, 96), torch.randn(3, 5, 120), torch.randn(3, 80, 16)
    with torch.no_grad():
        out = net(frames, lips, mels)
        scores = (net.encode_video(frames, lips) * net.encode_audio(mels)).sum(1)
    assert torch.allclose(scores, out.video_gate * (out.video * out.audio).sum(1), atol=1e-5)
