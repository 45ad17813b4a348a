"""The networks of recipes: one interface, and what they take from files."""

import pytest
import torch
from recipes import COMPACT_DIMS, PUBLISHED, PUBLISHED_DIMS, STUDENT

from avsync_cli.errors import ConfigError, ModelError
from training.config import MatchConfig, from_table
from training.data.pairs import PairBatch
from training.loops.steps import behave
from training.networks.presets import PRESETS, as_pixels, freeze, make_network, width_of
from training.networks.token_match import TokenMatchNet
from training.networks.vocalist import Dims, VocaList
from training.reach import Reach
from training.recipe import NetworkConfig, Recipe
from training.weights.loading import load_exactly, load_fitting
from training.weights.match_checkpoint import Checkpoint, save_checkpoint
from training.weights.recipe_checkpoint import RecipeCheckpoint, save_recipe_checkpoint

DIMS = Dims("mtdvocalist", 16, (4, 4, 8, 8, 16), heads=2)


def config_of(table, **changes):
    return from_table(NetworkConfig, table | changes, where="test")


def network_of(table, seed=0, **changes):
    torch.manual_seed(seed)
    return make_network(config_of(table, **changes)).eval()


def made_batch(reach, pairs=2, colours=()):
    rng = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (pairs, 5 + 2 * reach.frames, 48, 96, *colours), generator=rng)
    return PairBatch(
        frames.to(torch.uint8),
        torch.randn(pairs, frames.shape[1], 120, generator=rng),
        torch.randn(pairs, 80, 16 + 2 * reach.mel_steps, generator=rng),
        torch.ones(pairs),
        reach,
    )


@pytest.mark.parametrize("preset", [STUDENT, PUBLISHED])
def test_every_network_relates_pairs_of_any_wider_cut(preset):
    network, wide = network_of(preset), made_batch(Reach(4, 9))
    behaviour = behave(network, wide)
    assert behaviour.logits.shape == (2,)
    assert behaviour.video_tokens.shape == (2, 5, 16)
    assert behaviour.audio_tokens.shape == (2, 16, 16)
    again = behave(network, wide.within(network.reach))
    assert torch.equal(again.logits, behaviour.logits)


def test_pixels_are_what_each_published_network_takes():
    grey = torch.arange(2 * 5 * 48 * 96).view(2, 5, 48, 96).to(torch.uint8)
    assert torch.equal(as_pixels(grey, "rgb255"), torch.stack([grey.float()] * 3, dim=2))
    assert torch.allclose(as_pixels(grey, "bgr1") * 255, as_pixels(grey, "rgb255"))
    rgb = torch.zeros(1, 5, 48, 96, 3, dtype=torch.uint8)
    rgb[..., 0], rgb[..., 2] = 255, 51
    assert as_pixels(rgb, "rgb255")[0, 0, :, 0, 0].tolist() == [255, 0, 51]
    assert torch.allclose(as_pixels(rgb, "bgr1")[0, 0, :, 0, 0], torch.tensor([0.2, 0, 1]))
    assert network_of(PUBLISHED).pixels == "rgb255"
    assert network_of({"preset": "vocalist", "dims": PUBLISHED_DIMS}).pixels == "bgr1"
    with pytest.raises(ConfigError, match="no use for 'pixels'"):
        network_of(STUDENT, pixels="bgr1")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_their_width(name):
    with torch.device("meta"):
        network = make_network(NetworkConfig(name))
    assert width_of(network) == PRESETS[name].width


def test_unknown_presets_are_refused():
    with pytest.raises(ConfigError, match="'vocalis' is not one of vocalist, mtdvocalist"):
        make_network(NetworkConfig("vocalis"))


def test_authors_files_load_into_students_and_teachers(tmp_path):
    torch.manual_seed(1)
    authors = VocaList(DIMS).eval()
    path = tmp_path / "pure.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in authors.state_dict().items()}}, path)
    batch = made_batch(Reach())
    expected = authors(as_pixels(batch.frames, "rgb255"), batch.mels)
    student, teacher = network_of(PUBLISHED), network_of(PUBLISHED)
    started = load_fitting(student, path)
    assert (started.partly, started.left) == ((), ())
    load_exactly(teacher, path, config_of(PUBLISHED))
    for network in (student, teacher):
        assert torch.equal(behave(network, batch).logits, expected)


def save_match(path, dims_name="mtdvocalist-edge"):
    """A checkpoint of the matching; its averaged weights differ from its own."""
    config = MatchConfig(cache="cache", steps=1, network=dims_name)
    net = TokenMatchNet(make_network(config_of(STUDENT)).dims, config.model)
    average = {key: torch.full_like(value, 2) for key, value in net.state_dict().items()}
    save_checkpoint(path, Checkpoint(config, 1, net.state_dict(), average, {}, {"commit": "x"}))


def test_encoders_start_from_the_matching_before(tmp_path):
    save_match(tmp_path / "match.pt")
    network = network_of(STUDENT)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    started = load_fitting(network, tmp_path / "match.pt")
    encoders = {"video_encoder.trunk", "video_encoder.project", "audio_encoder.net", "audio_encoder.project"}
    assert set(started.taken) == encoders
    assert set(started.left) == {"av_transformer", "va_transformer", "mem_transformer", "fc", "classifier"}
    assert "left at its initial value: av_transformer" in started.describe()
    for key, value in network.state_dict().items():
        is_encoder = "_encoder." in key
        assert torch.equal(value, torch.full_like(value, 2) if is_encoder else before[key]), key


def test_a_file_of_which_nothing_fits_is_refused(tmp_path):
    save_match(tmp_path / "match.pt")
    with pytest.raises(ModelError, match="nothing in it fits"):
        load_fitting(network_of(PUBLISHED), tmp_path / "match.pt")
    # Counters and biases of one number fit every network: they are no start.
    other = network_of(STUDENT, dims=COMPACT_DIMS | {"width": 24}).state_dict()
    torch.save({key: value for key, value in other.items() if value.numel() == 1}, tmp_path / "x.pt")
    with pytest.raises(ModelError, match="nothing in it fits"):
        load_fitting(network_of(STUDENT), tmp_path / "x.pt")
    (tmp_path / "y.pt").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="not weights"):
        load_fitting(network_of(STUDENT), tmp_path / "y.pt")


def save_recipe(path, network, table):
    recipe = from_table(
        Recipe, {"name": "t", "cache": "c", "network": table, "method": {"name": "BCE"}}, where="test"
    )
    save_recipe_checkpoint(path, RecipeCheckpoint(recipe, 3, network.state_dict(), {}, {"commit": "x"}))


def test_a_teacher_needs_all_weights_of_the_same_network(tmp_path):
    path = tmp_path / "best.pt"
    trained = network_of(PUBLISHED, seed=5)
    save_recipe(path, trained, PUBLISHED)
    teacher = network_of(PUBLISHED)
    load_exactly(teacher, path, config_of(PUBLISHED))
    assert torch.equal(teacher.net.fc.weight, trained.net.fc.weight)
    with pytest.raises(ConfigError, match=r"rgb255 frames, not a .* of bgr1 frames"):
        load_exactly(teacher, path, config_of(PUBLISHED, pixels="bgr1"))
    state = {key: value for key, value in trained.state_dict().items() if "fc.bias" not in key}
    torch.save(state, tmp_path / "part.pt")
    with pytest.raises(ModelError, match=r"lacks net\.fc\.bias"):
        load_exactly(teacher, tmp_path / "part.pt", config_of(PUBLISHED))


def test_frozen_parts_are_named_by_whole_names():
    network = network_of(STUDENT)
    frozen = freeze(network, ("video_encoder.trunk", "fc"))
    still = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert still == {
        name for name, _ in network.named_parameters() if name.startswith(("video_encoder.trunk.", "fc."))
    }
    assert network.video_encoder.trunk in frozen
    with pytest.raises(ConfigError, match="no module 'video_enc'"):
        freeze(network, ("video_enc",))
