"""What can be exported, which crops it takes, and what is refused."""

import pytest
import torch
from recipes import PUBLISHED, STUDENT

from avsync_cli.errors import ConfigError, ModelError
from avsync_cli.spec import CROP_DEFINITION, FACE_CROP_DEFINITION
from export.trained import open_trained
from training.baseline_recipe import BaselineConfig
from training.config import MatchConfig, ModelConfig, from_table
from training.networks.avst import AVST_SMALL, Avst
from training.networks.compact import EDGE
from training.networks.presets import make_network
from training.networks.token_match import TokenMatchNet
from training.networks.vocalist import MTDVOCALIST, VocaList
from training.networks.window_match import MatchNet
from training.recipe import NetworkConfig, Recipe
from training.weights.baseline_checkpoint import BaselineCheckpoint, save_baseline
from training.weights.match_checkpoint import Checkpoint, save_checkpoint
from training.weights.recipe_checkpoint import RecipeCheckpoint, save_recipe_checkpoint

SMALL = ModelConfig(embedding=8, video_widths=(4, 4, 4), lips_width=4, audio_widths=(4, 4, 4, 4))


def save_recipe(path, table, **origin):
    network = make_network(from_table(NetworkConfig, table, where="test"))
    recipe = from_table(
        Recipe, {"name": "t", "cache": "c", "network": table, "method": {"name": "BCE"}}, where="test"
    )
    content = RecipeCheckpoint(recipe, 3, network.state_dict(), {}, {"commit": "x"} | origin)
    save_recipe_checkpoint(path, content)
    return network


def assert_same_weights(found, expected):
    assert type(found) is type(expected)
    assert not found.training
    for key, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[key], value), key


@pytest.mark.parametrize("name", ["window", "mtdvocalist-edge"])
def test_the_average_of_a_matching_is_exported(tmp_path, name):
    config = MatchConfig(cache="c", steps=1, network=name, model=SMALL if name == "window" else ModelConfig())
    net = MatchNet(SMALL) if name == "window" else TokenMatchNet(EDGE, config.model)
    own = {key: torch.zeros_like(value) for key, value in net.state_dict().items()}
    save_checkpoint(tmp_path / "last.pt", Checkpoint(config, 1, own, net.state_dict(), {}, {"commit": "x"}))
    trained = open_trained(tmp_path / "last.pt")
    assert_same_weights(trained.net, net)
    assert trained.crop == CROP_DEFINITION
    assert (trained.origin["commit"], trained.origin["config"]["network"]) == ("x", name)
    with pytest.raises(ConfigError, match="takes mouths"):
        open_trained(tmp_path / "last.pt", crop="face")
    with pytest.raises(ConfigError, match="leave out --network"):
        open_trained(tmp_path / "last.pt", network="mtdvocalist")


def test_a_recipes_checkpoint_says_which_crops_it_takes(tmp_path):
    path = tmp_path / "best.pt"
    net = save_recipe(path, STUDENT)
    assert_same_weights(open_trained(path).net, net.eval())
    assert open_trained(path).crop == CROP_DEFINITION
    for kind, crop in (("grey", CROP_DEFINITION), ("published-own-boxes", FACE_CROP_DEFINITION)):
        net = save_recipe(path, PUBLISHED, crop=kind)
        assert_same_weights(open_trained(path).net, net.eval())
        assert open_trained(path).crop == crop
        assert open_trained(path).origin["recipe"]["network"]["preset"] == "mtdvocalist"
        with pytest.raises(ConfigError, match="leave out --crop"):
            open_trained(path, crop="face")


def test_an_older_checkpoint_of_a_published_network_needs_its_crops_told(tmp_path):
    save_recipe(tmp_path / "best.pt", PUBLISHED)
    with pytest.raises(ConfigError, match="mouths or on faces"):
        open_trained(tmp_path / "best.pt")
    assert open_trained(tmp_path / "best.pt", crop="mouth").crop == CROP_DEFINITION


def test_the_authors_weights_need_their_network(tmp_path):
    path = tmp_path / "pure.pth"
    authors = VocaList(MTDVOCALIST)
    torch.save({"state_dict": {f"module.{k}": v for k, v in authors.state_dict().items()}}, path)
    trained = open_trained(path, network="mtdvocalist")
    assert_same_weights(trained.net.net, authors.eval())
    assert (trained.crop, trained.net.pixels) == (FACE_CROP_DEFINITION, "rgb255")
    assert trained.origin.items() >= {"network": "mtdvocalist", "pixels": "rgb255"}.items()
    other = open_trained(path, network="mtdvocalist", pixels="bgr1", crop="mouth")
    assert (other.crop, other.net.pixels, other.origin["pixels"]) == (CROP_DEFINITION, "bgr1", "bgr1")
    with pytest.raises(ConfigError, match="--network"):
        open_trained(path)
    with pytest.raises(ModelError, match="vocalist needs"):
        open_trained(path, network="vocalist")
    with pytest.raises(ConfigError, match="no use for 'pixels'"):
        open_trained(path, network="mtdvocalist-edge", pixels="bgr1")


def test_a_baseline_is_refused(tmp_path):
    config = BaselineConfig("b", "c", "contrastive")
    save_baseline(tmp_path / "best.pt", BaselineCheckpoint(config, 1, {}, {}, {}))
    with pytest.raises(ConfigError, match="two-stream baseline"):
        open_trained(tmp_path / "best.pt")


def test_avst_is_exported(tmp_path):
    config = BaselineConfig("b", "c", "offsets", network="avst-small")
    net = Avst(AVST_SMALL)
    for origin, crop in (({"crop": "grey"}, None), ({}, "mouth")):
        save_baseline(tmp_path / "best.pt", BaselineCheckpoint(config, 1, net.state_dict(), {}, origin))
        trained = open_trained(tmp_path / "best.pt", crop=crop)
        assert_same_weights(trained.net, net.eval())
        assert trained.crop == CROP_DEFINITION
    with pytest.raises(ConfigError, match="mouths or on faces"):
        open_trained(tmp_path / "best.pt")
