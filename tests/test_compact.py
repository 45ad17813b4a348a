"""The compact networks: what a token may see, that windows share tokens, what they cost, how they start."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_cache import make_cache
from torch.utils.flop_counter import FlopCounterMode

from avsync_cli.errors import ConfigError
from avsync_cli.mel import MelTrack
from training.config import DataConfig, MatchConfig, ModelConfig, OptimiserConfig
from training.data.clips import Sampler, Section, load_clips, make_batch
from training.evaluation.score_clips import score_clip
from training.evaluation.torch_encoders import match_encoders
from training.loops.loop import LAST
from training.loops.match import make_trainer, start_from, train, train_step
from training.losses.relations import ALL_LAYERS, compare_layers
from training.networks.compact import (
    COMPACT,
    EDGE,
    FINE,
    REACH_FRAMES,
    REACH_MEL_STEPS,
    CompactDims,
    CompactNet,
)
from training.networks.token_match import make_match_net, windows_of
from training.reach import Reach
from training.weights.match_checkpoint import Checkpoint, load_checkpoint, load_start, save_checkpoint

SIZES = ModelConfig(video_widths=(4, 4, 8), video_blocks=(1, 1, 1), lips_width=8)
TINY = CompactDims("tiny", 16, SIZES, audio_widths=(4, 4, 8, 8), heads=2, layers=1)
FRAMES, STEPS = 14, 40


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return CompactNet(TINY).eval()


@pytest.fixture(scope="module")
def clip():
    rng = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (1, FRAMES, 48, 96), generator=rng, dtype=torch.uint8)
    return frames, torch.randn(1, FRAMES, 120, generator=rng), torch.randn(1, 80, STEPS, generator=rng)


@settings(max_examples=20)
@given(st.integers(0, FRAMES - 1))
def test_video_token_sees_its_reach_and_no_more(net, clip, changed):
    frames, lips, _ = clip
    other_frames, other_lips = frames.clone(), lips.clone()
    other_frames[:, changed] = 255 - other_frames[:, changed]
    other_lips[:, changed] += 1
    with torch.no_grad():
        before, after = net.encode_video(frames, lips), net.encode_video(other_frames, other_lips)
    tokens = torch.arange(FRAMES - 2 * REACH_FRAMES) + REACH_FRAMES  # the frames that they stand for
    differs = (before != after).any(dim=2)[0]
    assert torch.equal(differs, (tokens - changed).abs() <= REACH_FRAMES)


@settings(max_examples=20)
@given(st.integers(0, STEPS - 1))
def test_audio_token_sees_its_reach_and_no_more(net, clip, changed):
    mels = clip[2]
    other = mels.clone()
    other[:, :, changed] += 10
    with torch.no_grad():
        before, after = net.encode_audio(mels), net.encode_audio(other)
    tokens = torch.arange(STEPS - 2 * REACH_MEL_STEPS) + REACH_MEL_STEPS
    # A rounding of the convolution may depend on the place, so equality is to float precision.
    differs = ((before - after).abs() > 1e-5).any(dim=2)[0]
    assert not differs[(tokens - changed).abs() > REACH_MEL_STEPS].any()
    assert differs[(tokens - changed).abs() <= 1].all()


def test_tokens_of_a_window_alone_are_those_of_the_clip(net, clip):
    frames, lips, mels = clip
    with torch.no_grad():
        video, audio = net.encode_video(frames, lips), net.encode_audio(mels)
        window = slice(3, 3 + 5 + 2 * REACH_FRAMES)
        alone = net.encode_video(frames[:, window], lips[:, window])
        heard = net.encode_audio(mels[:, :, 7 : 7 + 16 + 2 * REACH_MEL_STEPS])
    assert alone.shape == (1, 5, 16)
    assert heard.shape == (1, 16, 16)
    torch.testing.assert_close(alone, video[:, 3:8], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(heard, audio[:, 7:23], atol=1e-5, rtol=1e-5)


def test_no_token_loses_its_position(net, clip):
    frames, lips, mels = clip
    with torch.no_grad():
        for tokens in (net.encode_video(frames, lips), net.encode_audio(mels)):
            assert (tokens[..., 0] != 0).all()
            torch.testing.assert_close(tokens.norm(dim=2), torch.ones(tokens.shape[:2]), atol=0.01, rtol=0)


@pytest.mark.parametrize("dims", [EDGE, FINE, COMPACT])
def test_encoders_keep_within_60_million_products_a_frame(dims):
    net, frames = CompactNet(dims).eval(), 25
    steps = frames * 16 // 5
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        net.encode_video(torch.zeros(1, frames + 4, 48, 96), torch.zeros(1, frames + 4, 120))
        net.encode_audio(torch.zeros(1, 80, steps + 12))
    assert counted.get_total_flops() / 2 / frames < 60e6


def test_relations_of_edge_and_compact_compare():
    torch.manual_seed(0)
    with torch.no_grad():
        student, teacher = (
            CompactNet(dims).eval().relate(torch.randn(2, 5, dims.width), torch.randn(2, 16, dims.width))
            for dims in (EDGE, COMPACT)
        )
    losses = compare_layers(student, teacher, layers=ALL_LAYERS)
    assert losses.cad.shape == losses.vr.shape == (12,)
    assert (losses.cad > 0).all()
    assert torch.isfinite(losses.vr).all()


def test_windows_are_cut_out_of_tokens():
    tokens = torch.arange(24.0).view(2, 12, 1)
    found = windows_of(tokens, torch.tensor([[0, 3], [7, 1]]), 5)
    assert found[0].tolist() == [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7]]
    assert found[1].tolist() == [[19, 20, 21, 22, 23], [13, 14, 15, 16, 17]]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache"))


def edge_config(cache):
    return MatchConfig(
        cache=str(cache),
        steps=2,
        network="mtdvocalist-edge",
        threads=1,
        log_every=1,
        validate_every=2,
        data=DataConfig(clips=2, windows=12, start={"broadcast": 0.5, "wild": 0.5}),
        optimiser=OptimiserConfig(warm_up=1),
    )


def test_edge_encoders_train_from_the_trunk_of_a_student(cache, tmp_path):
    config = edge_config(cache)
    window = replace(config, network="window", model=replace(ModelConfig(), audio_widths=(4, 4, 4, 4)))
    assert train(window, tmp_path / "window")
    assert train(config, tmp_path / "edge", start=tmp_path / "window" / LAST)
    begun, trained = (load_checkpoint(tmp_path / run / LAST) for run in ("window", "edge"))
    key = "video_encoder.lips.1.weight"
    near = trained.average[key.replace("encoder.", "encoder.trunk.")]
    assert not torch.equal(near, begun.average[key])
    torch.testing.assert_close(near, begun.average[key], atol=0.02, rtol=0)
    assert (tmp_path / "edge" / "val.csv").read_text().count("\n") > 2
    edge = CompactNet(EDGE)
    fitting = {key for key, value in trained.average.items() if key in edge.state_dict()}
    assert fitting == {key for key in edge.state_dict() if key.startswith(("video_encoder", "audio_encoder"))}


def test_a_fine_student_begins_as_the_one_that_it_starts_from(cache, tmp_path):
    """And its second trunk learns from the first step on."""
    begun, config = tmp_path / "begun.pt", edge_config(cache)
    torch.manual_seed(2)
    net = make_match_net(config)
    save_checkpoint(begun, Checkpoint(config, 0, net.state_dict(), net.state_dict(), {}, {}))
    config = replace(config, network=FINE.name)
    trainer = make_trainer(config, load_clips(cache, split="train"))
    start_from(trainer, load_start(begun))
    clip = load_clips(cache, split="val")[0]
    scores = [score_clip(clip, match_encoders(each.eval())) for each in (net, trainer.average)]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-4)
    before = {key: value.clone() for key, value in trainer.net.state_dict().items()}
    for step in range(2):
        train_step(trainer, step)
    project = "video_encoder.project.linear.weight"
    columns = before[project].shape[1] - net.state_dict()[project].shape[1]
    assert not before[project][:, -columns:].any()
    assert trainer.net.state_dict()[project][:, -columns:].any()
    stem = "video_encoder.trunk.fine.0.convolution.weight"
    assert not torch.equal(trainer.net.state_dict()[stem], before[stem])


def scores_in_batch(net, section, windows):
    """Scores of a section's windows [W] against its sounds [W] as they are in training."""
    batch = make_batch([section], windows, 0, reach=net.reach)
    with torch.no_grad():
        out = net(batch.crops, batch.lips, batch.mel, batch.video_rows, batch.audio_steps)
    pairs = (out.video * out.video_gate.unsqueeze(1)) @ out.audio.T
    return pairs.numpy(), batch.validity


def test_training_sees_windows_as_scoring_does(cache):
    """Inside a clip, at its ends, and where a section was cut: there as in a clip that ends there."""
    torch.manual_seed(1)
    net = make_match_net(edge_config(cache)).eval()
    clip = load_clips(cache, split="val")[0]
    first, end = clip.run
    windows = end - first
    expected = score_clip(clip, match_encoders(net))
    pairs, validity = scores_in_batch(net, Section(clip, first), windows)
    assert validity.video.all()
    assert validity.audio.all()
    for lead in (-3, 0, 2):
        diagonal = np.diagonal(pairs, -lead)
        column = expected[:, lead + 15]
        np.testing.assert_allclose(diagonal, column[np.isfinite(column)], atol=1e-4)

    cut = Section(clip, first + 2, video_cut=(3, 2), audio_cut=(3, 4))
    pairs, validity = scores_in_batch(net, cut, windows - 4)
    assert validity.video[0].int().tolist() == [0] * 3 + [1] * (windows - 9) + [0] * 2
    assert validity.audio[0].int().tolist() == [0] * 3 + [1] * (windows - 11) + [0] * 4
    expected = score_clip(shortened(clip, (5, windows - 4), (5, windows - 6)), match_encoders(net))
    for lead in (-3, 0, 2):
        diagonal = [pairs[row, row - lead] for row in range(3, windows - 6) if 3 <= row - lead < windows - 8]
        column = expected[:, lead + 15]
        np.testing.assert_allclose(diagonal, column[np.isfinite(column)], atol=1e-4)


def shortened(clip, video, sounds):
    """A clip of the video windows and the audio windows of the given ranges, counted from its first ones.

    The first sound's mel step must be on the grid of a clip that begins there: every fifth tick's is.
    """
    mel, tick = clip.mel, clip.mel.first_tick + sounds[0]
    assert mel.origin_tick == mel.first_tick
    assert sounds[0] % 5 == 0
    start, last = mel.starts(mel.all_ticks[slice(*sounds)])[[0, -1]]
    track = MelTrack(mel.mel[start : last + 16], tick, tick, sounds[1] - sounds[0])
    frames = slice(video[0], video[1] + 4)
    return replace(
        clip,
        crops=clip.crops[frames],
        lips=clip.lips[frames],
        first_tick=clip.first_tick + video[0],
        mel=track,
    )


def test_edge_sections_are_cut_at_random_and_never_to_less_than_asked(cache):
    config = replace(edge_config(cache).data, cut_windows=5, min_windows=8, windows=30)
    sampler = Sampler(load_clips(cache, split="train"), config, seed=0, steps=10, reach=Reach(2, 6))
    validity = [sampler.batch(step).validity for step in range(20)]
    firsts = {int(valid.int().argmax()) for v in validity for valid in (*v.video, *v.audio)}
    assert firsts == {0, 1, 2, 3, 4, 5}
    assert any((v.video != v.audio).any() for v in validity)
    assert min(int(v.video.sum(1).min()) for v in validity) >= 8


def test_scores_of_a_clip_are_those_of_its_windows(cache):
    """The shared tokens of the whole clip against windows that are encoded one by one."""
    net = make_match_net(edge_config(cache)).eval()
    clip = load_clips(cache, split="val")[0]
    scores = score_clip(clip, match_encoders(net))
    tick, lead = 12, -4  # the sound comes four frames late
    lips = torch.from_numpy(clip.lips.astype(np.float32)).flatten(1)
    rows = slice(tick - clip.first_tick - 2, tick - clip.first_tick + 7)
    start = (tick - lead - clip.mel.origin_tick) * 16 // 5
    mel = torch.from_numpy(clip.mel.mel[start - 6 : start + 22].astype(np.float32)).T
    with torch.no_grad():
        video = net.video_encoder(torch.from_numpy(clip.crops[rows]).unsqueeze(0), lips[rows].unsqueeze(0))
        audio = net.audio_encoder(mel.unsqueeze(0))
        embedding, gate = net.video_head(video.flatten(1))
        expected = gate * (embedding * net.audio_head(audio.flatten(1))[0]).sum()
    assert scores[tick - clip.first_tick, lead + 15] == pytest.approx(expected.item(), abs=1e-4)


def test_network_that_does_not_exist_and_sizes_of_another_are_refused(cache):
    config = edge_config(cache)
    with pytest.raises(ConfigError, match="'edge' is not one of window, mtdvocalist-edge"):
        make_match_net(replace(config, network="edge"))
    with pytest.raises(ConfigError, match="sizes of its own"):
        make_match_net(replace(config, model=SIZES))
