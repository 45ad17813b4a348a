"""What is called "as published" gives the numbers that the published code gave (../shared/golden)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from behaviours import STUDENT_WIDTH, TEACHER_WIDTH, made_up_behaviour
from colour_cache import make_colour_cache
from noise_clips import made_clip
from recipes import PUBLISHED, STUDENT, TEACHER, make_recipe, save_teacher, trainer_of
from synthetic_cache import make_cache
from torch.nn import functional as F

from avsync_cli.errors import ConfigError
from avsync_cli.mel import mel_spectrogram, mel_track
from avsync_cli.sound import Sound
from training.data.cache import read_manifest, sha256_of, write_arrays, write_manifest
from training.data.pairs import Pair, chunk_mel, cut_pairs
from training.evaluation.protocol import LENGTHS
from training.evaluation.published_protocol import (
    hide_outside,
    published_accuracy,
    published_figures,
    published_scores,
)
from training.evaluation.score_clips import Encoders, dot_score, score_clip
from training.loops.distill import make_trainer, train
from training.loops.optimise import rate_by_epochs
from training.loops.steps import take_step
from training.loops.validation import Counts, validate
from training.losses.distillation import FitNets, bce_loss, kd_batch_loss
from training.networks.transformer import CrossModalEncoder
from training.processes import Processes
from training.reach import Reach
from training.recipe import RecipeOptimiser, read_recipe

GOLDEN = Path(__file__).parents[2] / "shared" / "golden" / "published_rules.npz"
CONFIGS = Path(__file__).parents[1] / "training" / "configs"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def golden():
    for place in (GOLDEN, *(up / "shared" / "golden" / GOLDEN.name for up in GOLDEN.parents)):
        if place.is_file():
            with np.load(place) as file:
                return dict(file)
    pytest.skip("needs ../shared/golden/published_rules.npz, recorded by running the published code")


def in_our_order(scores):
    """The published column j is the sound j - 15 windows later, ours that of a lead of j - 15."""
    return hide_outside(scores[:, ::-1])


def test_the_protocol_is_the_published_one(golden):
    lengths = golden["lengths"].tolist()
    assert lengths == list(LENGTHS)
    clips = [in_our_order(golden[f"scores_{number}"]) for number in range(24)]
    assert min(map(len, clips)) < 30 < max(map(len, clips))
    found = [[published_accuracy(scores, frames) for frames in lengths] for scores in clips]
    np.testing.assert_allclose(found, golden["accuracy"], atol=5.1e-5)  # recorded to four decimals
    figures = published_figures(clips)
    np.testing.assert_allclose(
        [figures[str(frames)] for frames in lengths], 100 * golden["accuracy"].mean(axis=0), atol=5.1e-3
    )


def test_kd_is_the_published_one(golden):
    student = torch.from_numpy(golden["kd_student"]).requires_grad_()
    loss = kd_batch_loss(student, torch.from_numpy(golden["kd_teacher"]))
    loss.backward()
    assert loss.item() == pytest.approx(float(golden["kd_value"]), rel=1e-5)
    np.testing.assert_allclose(student.grad, golden["kd_gradient"], rtol=1e-4, atol=1e-8)


def sounding_clip(samples, *, name="a", frames=20):
    """A clip with its samples, beginning in the middle of a frame."""
    sound = Sound(samples.astype(np.float32), 100)
    track = mel_track(sound)
    held = np.pad((sound.samples * 32767).round().astype(np.int16), (100, 0))
    clip = made_clip(name=name, frames=frames)
    return replace(clip, mel=track, sound=held)


def test_the_mel_of_a_chunk_is_the_published_one(golden):
    for chunk, expected in zip(golden["chunks"], golden["chunk_mels"], strict=True):
        np.testing.assert_allclose(mel_spectrogram(chunk)[:16].T, expected, atol=2e-5)
        around = 0.1 * np.random.default_rng(0).standard_normal(13_000)
        around[2 * 640 - 100 : 2 * 640 - 100 + 3200] = chunk
        clip = sounding_clip(around)
        # The cache keeps samples of 16 bits, which is heard in the quietest bins.
        np.testing.assert_allclose(chunk_mel(clip, 2), expected, atol=0.05)
        assert np.abs(chunk_mel(clip, 2) - expected).mean() < 0.002
        whole = cut_pairs([(clip, Pair(2, 2))], Reach()).mels[0].numpy()
        assert np.abs(whole - expected).max() > 0.1


def test_a_clip_without_its_samples_says_what_to_do():
    with pytest.raises(ConfigError, match=r"holds no samples; prepare it with --sound"):
        cut_pairs([(made_clip(), Pair(2, 2))], Reach(), mel="chunk")


def loud_encoders(silence: float) -> Encoders:
    """A window is one number: its own tick; the sound's too, but silence is what is given."""

    def encode_video(_crops, _lips, windows):
        return np.stack([np.arange(windows), np.ones(windows)], axis=1).astype(np.float32)

    def encode_audio(mel, ticks):
        is_nothing = not mel.mel.any()
        values = np.full(len(ticks), silence) if is_nothing else -0.001 * np.arange(len(ticks))
        return np.stack([np.zeros(len(ticks)), values], axis=1).astype(np.float32)

    return Encoders(encode_video, encode_audio, dot_score)


def test_in_a_short_clip_silence_may_win_on_the_right():
    clip = sounding_clip(0.1 * np.random.default_rng(1).standard_normal(26 * 640 - 100), frames=26)
    for silence, expected in ((9.0, 0), (-9.0, None)):
        encoders = loud_encoders(silence)
        scores = published_scores(clip, score_clip(clip, encoders), encoders)
        windows = len(scores)
        assert windows == clip.windows - 1  # the last window is left out
        late = scores[:, 0]  # the sound 15 windows later, which is outside for the last windows
        assert (late[windows - 14 : 15] == silence).all()
        assert np.isnan(scores[0, 30])  # on the left it is hidden
        assert np.isnan(scores[windows - 1, 0]) == (windows - 1 >= 15)
        if expected is not None:
            assert published_accuracy(scores, 5) < 0.5


def test_a_clip_of_one_window_has_nothing_to_count():
    clip = sounding_clip(0.1 * np.random.default_rng(1).standard_normal(5 * 640 - 100), frames=5)
    encoders = loud_encoders(0.0)
    scores = published_scores(clip, score_clip(clip, encoders), encoders)
    assert scores.shape == (0, 31)
    assert published_figures([scores]) == {}


def test_at_the_ends_fewer_scores_are_averaged():
    scores = np.full((40, 31), 0.0, np.float32)
    scores[:, 15] = 1.0
    scores[0, 15], scores[0, 3] = -9.0, 1.0
    hidden = hide_outside(scores)
    assert published_accuracy(hidden, 5) == 39 / 40
    # With K=7 the first window's mean is over two rows, the second's over three: the true column loses in
    # both.
    assert published_accuracy(hidden, 7) == 38 / 40


def test_fitnets_as_published_projects_the_teacher():
    student, teacher = made_up_behaviour(STUDENT_WIDTH, seed=1), made_up_behaviour(TEACHER_WIDTH, seed=2)
    labels = torch.tensor([1.0, 0.0, 1.0])
    method = FitNets(STUDENT_WIDTH, TEACHER_WIDTH, weight=100.0, hint="to_student")
    loss = method(student, teacher, labels)
    hint = F.mse_loss(method.projection(teacher.mem.output), student.mem.output)
    assert method.projection.weight.shape == (STUDENT_WIDTH, TEACHER_WIDTH)
    torch.testing.assert_close(loss.total, bce_loss(student.logits, labels) + 100 * hint)


def test_keys_and_values_may_be_dropped_apart():
    encoder = CrossModalEncoder(16, 2, layers=1)
    query, source = torch.randn(2, 4, 16), torch.rand(2, 6, 16) + 0.1
    together, apart = [], []
    for draws_apart, found in ((False, together), (True, apart)):
        encoder.draws_apart = draws_apart
        for is_training in (True, False):
            encoder.train(is_training)
            torch.manual_seed(5)
            found.append(encoder(query, source))
    assert torch.equal(together[1].output, apart[1].output)  # what is drawn does not matter in use
    keys, values = (getattr(apart[0].layers[0], name) for name in ("scores", "values"))
    # The query and the keys are drawn first, as where one draw serves both: only the values are others.
    torch.testing.assert_close(keys, together[0].layers[0].scores)
    assert not torch.allclose(values, together[0].layers[0].values)


def test_warm_up_by_epoch():
    config = RecipeOptimiser(learning_rate=1.0, warm_up=4, warm_up_by="epoch")
    rates = [rate_by_epochs(step, 3, 10, config) for step in range(13)]
    assert rates == pytest.approx([0.25] * 3 + [0.5] * 3 + [0.75] * 3 + [1.0] * 4)


def test_f1_of_both_classes_at_half_a_logit():
    counts = Counts(threshold=0.5)
    logits = torch.tensor([0.6, 0.4, 2.0, -1.0, 0.7, 0.1])
    counts.add(logits, torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]))
    # In sync: 2 hits, 1 false alarm, 1 miss: F1 4/6; not in sync: 2 right, 1 and 1 wrong: 4/6.
    assert (counts.hits, counts.false_alarms, counts.misses) == (2, 1, 1)
    assert counts.weighted_f1 == pytest.approx(2 / 3)
    counts.add(torch.tensor([3.0]), torch.tensor([1.0]))
    assert counts.weighted_f1 == pytest.approx((4 * 6 / 8 + 3 * 4 / 6) / 7)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """In colour, with samples."""
    folder = make_colour_cache(tmp_path_factory.mktemp("cache"))
    entries = []
    for entry in read_manifest(folder):
        path = folder / f"{entry.file}.audio.npz"
        with np.load(path) as part:
            arrays = dict(part)
        noise = np.random.default_rng(1).standard_normal(200 * (len(arrays["mel"]) - 1))
        write_arrays(path, arrays | {"sound": (3000 * noise).astype(np.int16)})
        entries.append(replace(entry, audio_sha256=sha256_of(path)))
    write_manifest(folder, entries, crop="published")
    return folder


def published_recipe(tmp_path, cache, method="BCE", more=""):
    path = tmp_path / f"{method}.toml"
    path.write_text(
        f'name = "x"\ncache = "{cache}"\nas_published = true\nthreads = 1\ndevice = "cpu"\nlog_every = 1\n'
        f'[method]\nname = "{method}"\n'
        '[network]\npreset = "mtdvocalist"\n'
        "[network.dims]\nwidth = 16\nchannels = [4, 4, 8, 8, 16]\nheads = 2\n"
        "[data]\nbatch = 2\nepochs = 2\n[validation]\npairs = 6\nevery_steps = 1\n" + more
    )
    return read_recipe(path)


def test_the_switch_sets_every_option_and_leaves_what_is_set(tmp_path, cache):
    recipe = published_recipe(tmp_path, cache)
    assert (recipe.network.dropout, recipe.data.mel, recipe.data.negatives) == ("apart", "chunk", "clip")
    assert (recipe.optimiser.warm_up_by, recipe.validation.rule) == ("epoch", "published")
    teacher = '[teacher]\npreset = "vocalist"\nweights = "t.pt"\n'
    kd = published_recipe(tmp_path, cache, "KD", teacher)
    assert (kd.method.softmax, kd.method.temperature) == ("batch", None)
    fitnets = published_recipe(tmp_path, cache, "FitNets", teacher)
    assert (fitnets.method.weight, fitnets.method.hint) == (100, "to_student")
    assert published_recipe(tmp_path, cache, "MTD", teacher).method.clamp_va
    path = tmp_path / "BCE.toml"
    kept = read_recipe(path, ["data.mel=clip", "optimiser.warm_up=3"])
    assert (kept.data.mel, kept.optimiser.warm_up, kept.data.negatives) == ("clip", 3, "clip")
    with pytest.raises(ConfigError, match="as_published: must be bool"):
        read_recipe(path, ["as_published=1"])


def test_a_run_as_published_goes_on_to_the_same_numbers(tmp_path, cache):
    recipe = published_recipe(tmp_path, cache)
    assert train(recipe, tmp_path / "whole")
    assert train(replace(recipe, max_steps=2), tmp_path / "cut")
    tables = [(tmp_path / name / "val.csv").read_text().splitlines() for name in ("whole", "cut")]
    assert "f1_published" in tables[0][0]
    assert tables[0][:3] == tables[1][:3]
    trainer, draw = make_trainer(recipe, CPU, Processes())
    first, second = draw(1), draw(2)
    assert not torch.equal(first[0].mels, second[0].mels)
    assert torch.equal(first[0].mels, draw(1)[0].mels)
    figures = validate(trainer, first)
    assert 0 <= figures["f1_published"] <= 1
    # The mel of a pair is that of its chunk.
    found = take_step(trainer, 0)["total"]
    other = trainer_of(replace(recipe, data=replace(recipe.data, mel="clip")))
    assert found != take_step(other, 0)["total"]


def test_the_published_hint_is_watched_with_a_projection_that_stays(tmp_path):
    cache = make_cache(tmp_path / "cache")
    teacher = TEACHER | {"weights": str(save_teacher(tmp_path / "best.pt"))}
    recipe = make_recipe(
        cache, teacher=teacher, method={"name": "MTD"}, validation={"observe": ["FitNets-published"]}
    )
    trainer, draw = make_trainer(recipe, CPU, Processes())
    first = validate(trainer, draw(0))["observed/FitNets-published"]
    torch.manual_seed(77)
    assert validate(trainer, draw(0))["observed/FitNets-published"] == first
    assert first > validate(trainer, draw(0))["bce"]


def test_vocalist_s_600_epochs_have_a_recipe():
    recipe = read_recipe(CONFIGS / "teacher" / "vocalist-600.toml")
    assert (recipe.data.epochs, recipe.network.preset, recipe.network.weights) == (600, "vocalist", None)


def test_a_chunk_has_no_reach(cache, tmp_path):
    recipe = make_recipe(cache, network=PUBLISHED)
    assert trainer_of(replace(recipe, data=replace(recipe.data, mel="chunk"))).reach == Reach()
    compact = make_recipe(cache, network=STUDENT, data={"mel": "chunk"})
    with pytest.raises(ConfigError, match="these networks look beyond their windows"):
        trainer_of(replace(compact, cache=str(make_cache(tmp_path / "grey"))))
