"""The published networks against recorded outputs, and their quirks one by one."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from avsync_cli.errors import ModelError
from training.networks.transformer import CrossModalEncoder, Positions, future_mask
from training.networks.vocalist import MTDVOCALIST, VOCALIST, Behaviour, Dims, VocaList
from training.weights.loading import load_reference

GOLDEN = Path(__file__).parents[2] / "shared" / "golden"
TINY = Dims("tiny", 16, (2, 2, 2, 2, 16))

needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason=f"needs the recorded outputs of the published networks in {GOLDEN}"
)


@dataclass(frozen=True)
class Recorded:
    """A network with seeded weights, what it was asked, and what the published code answered."""

    behaviour: Behaviour
    arrays: dict[str, np.ndarray]


def seeded() -> ModuleType:
    """The maker of the seeded weights and inputs."""
    spec = importlib.util.spec_from_file_location("seeded_state_dict", GOLDEN / "seeded_state_dict.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seeded_weights(name: str) -> dict[str, Tensor]:
    return {key: torch.from_numpy(array) for key, array in seeded().seeded_state_dict(name).items()}


@pytest.fixture(scope="module")
def recorded(request: pytest.FixtureRequest) -> Recorded:
    name, dims, full_scale = request.param
    model = load_reference(seeded_weights(name), dims)
    frames, mels = (torch.from_numpy(array) for array in seeded().seeded_inputs())
    with torch.inference_mode():
        behaviour = model(frames.view(-1, 5, 3, 48, 96) / full_scale, mels[:, 0], with_behaviour=True)
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return Recorded(behaviour, dict(arrays))


@pytest.fixture(scope="module")
def tiny() -> VocaList:
    torch.manual_seed(0)
    return VocaList(TINY).eval()


def random_windows(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Frames in 0..1 and mels."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.rand(count, 5, 3, 48, 96, generator=generator)
    return frames, 8 * torch.rand(count, 80, 16, generator=generator) - 4


def random_tokens(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Video and audio tokens of the tiny network; like tokens out of a ReLU, many are 0."""
    generator = torch.Generator().manual_seed(seed)
    video = torch.randn(count, 5, TINY.width, generator=generator).relu()
    return video, torch.randn(count, 16, TINY.width, generator=generator).relu()


@needs_golden
@pytest.mark.parametrize(
    "recorded",
    [
        pytest.param(("student", MTDVOCALIST, 1), id="student"),
        pytest.param(("teacher", VOCALIST, 255), id="teacher", marks=pytest.mark.slow),
    ],
    indirect=True,
)
class TestRecordedOutputs:
    def test_logits(self, recorded: Recorded):
        self.close(recorded.behaviour.logits, recorded.arrays["logits"])

    def test_tokens(self, recorded: Recorded):
        for tokens in ("video_tokens", "audio_tokens"):
            expected = recorded.arrays[tokens]
            found = getattr(recorded.behaviour, tokens).mT
            # Seeded weights drive tokens to 1e4, where float32 itself is no finer than 1e-3.
            largest = np.abs(expected).max()
            self.close(found / largest, expected / largest)
            np.testing.assert_array_equal(found[:, 0].numpy() == 0, expected[:, 0] == 0)

    @pytest.mark.parametrize(("encoder", "layer"), [("av", 0), ("va", 0), ("mem", 3)])
    def test_attention(self, recorded: Recorded, encoder: str, layer: int):
        found = getattr(recorded.behaviour, encoder)
        self.close(found.layers[layer].scores.flatten(0, 1), recorded.arrays[f"{encoder}_scores_{layer}"])
        self.close(found.layers[layer].values.flatten(0, 1), recorded.arrays[f"{encoder}_values_{layer}"])
        self.close(found.output.transpose(0, 1), recorded.arrays[f"{encoder}_out"])

    @staticmethod
    def close(found: Tensor, expected: np.ndarray) -> None:
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("dims", "millions"), [(MTDVOCALIST, 13.281), (VOCALIST, 80.107)])
def test_parameters_are_as_many_as_published(dims: Dims, millions: float):
    assert round(sum(p.numel() for p in VocaList(dims).parameters()) / 1e6, 3) == millions


@needs_golden
@pytest.mark.parametrize(("name", "dims"), [("student", MTDVOCALIST), ("teacher", VOCALIST)])
def test_keys_and_shapes_are_those_of_the_published_files(name: str, dims: Dims):
    shapes = {key: list(tensor.shape) for key, tensor in VocaList(dims).state_dict().items()}
    assert shapes == seeded().json.loads((GOLDEN / f"{name}_shapes.json").read_text())


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("is_wrapped", [True, False])
def test_weights_survive_a_file(tiny: VocaList, tmp_path: Path, prefix: str, is_wrapped: bool):
    path = tmp_path / "weights.pth"
    state = {prefix + key: tensor for key, tensor in tiny.state_dict().items()}
    torch.save({"state_dict": state} if is_wrapped else state, path)
    model = load_reference(path, TINY)
    assert not model.training
    expected, loaded = tiny.state_dict(), model.state_dict()
    assert list(loaded) == list(expected)
    assert [key for key in expected if not torch.equal(loaded[key], expected[key])] == []


def test_the_first_key_that_is_wrong_is_named(tiny: VocaList):
    state = tiny.state_dict()
    keys = [key for key in state if "bias" in key]
    lacking = {key: tensor for key, tensor in state.items() if key not in (keys[3], keys[5])}
    with pytest.raises(ModelError, match=f"lacks {keys[3]}, which tiny needs"):
        load_reference(lacking, TINY)
    with pytest.raises(ModelError, match=rf"{keys[2]} has shape \[3\], but tiny needs \[2\]"):
        load_reference(lacking | {keys[2]: torch.zeros(3)}, TINY)
    with pytest.raises(ModelError, match=f"{keys[0]} is not a tensor"):
        load_reference(state | {keys[0]: "zero"}, TINY)
    with pytest.raises(ModelError, match=r"extra\.weight is not part of tiny"):
        load_reference(state | {"extra.weight": torch.zeros(1)}, TINY)


def test_weights_of_another_size_are_refused(tiny: VocaList):
    with pytest.raises(ModelError, match=r"vid_prenet\.0\.conv_block\.0\.weight has shape \[2, 3, 7, 7, 7\]"):
        load_reference(tiny.state_dict(), MTDVOCALIST)


def test_files_that_hold_no_weights_are_refused(tmp_path: Path):
    with pytest.raises(ModelError, match="No such file"):
        load_reference(tmp_path / "none.pth", TINY)
    path = tmp_path / "weights.pth"
    path.write_bytes(b"not weights")
    with pytest.raises(ModelError, match="not weights that can be read"):
        load_reference(path, TINY)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(ModelError, match="not a state dict"):
        load_reference(path, TINY)
    torch.save({"state_dict": Path("code is not weights")}, path)
    with pytest.raises(ModelError, match="not weights that can be read"):
        load_reference(path, TINY)
    with pytest.raises(ModelError, match="does not hold weights"):
        load_reference({"state_dict": 3}, TINY)


def test_sizes_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="the last stage"):
        Dims("odd", 16, (2, 2, 2, 2, 8))
    with pytest.raises(ValueError, match="heads"):
        Dims("odd", 20, (2, 2, 2, 2, 20))


def test_encoding_once_and_pairing_gives_the_logits_of_the_whole_network(tiny: VocaList):
    frames, mels = random_windows(3)
    with torch.inference_mode():
        video, audio = tiny.encode_video(frames), tiny.encode_audio(mels)
        pairs = tiny.score_pairs(video.repeat_interleave(3, 0), audio.repeat(3, 1, 1)).view(3, 3)
        whole = tiny(frames, mels)
    assert video.shape == (3, 5, TINY.width)
    assert audio.shape == (3, 16, TINY.width)
    assert whole.shape == (3,)
    torch.testing.assert_close(pairs.diagonal(), whole)
    assert len(pairs.unique()) == 9


def test_tokens_come_from_a_relu(tiny: VocaList):
    frames, mels = random_windows(1)
    with torch.inference_mode():
        assert tiny.encode_video(frames).min() == 0
        assert tiny.encode_audio(mels).min() == 0


def test_behaviour_has_the_shapes_that_distillation_compares(tiny: VocaList):
    behaviour = tiny.relate(*random_tokens(2))
    for encoder, queries, sources in (
        (behaviour.av, 16, 5),
        (behaviour.va, 5, 16),
        (behaviour.mem, 16, 5),
    ):
        assert len(encoder.layers) == 4
        assert encoder.output.shape == (2, queries, 16)
        for layer in encoder.layers:
            assert layer.scores.shape == (2, 8, queries, sources)
            assert layer.values.shape == (2, 8, sources, 2)
    assert behaviour.pooled.shape == (2, 16)
    torch.testing.assert_close(behaviour.pooled, behaviour.mem.output.max(dim=1).values)


def test_positions_are_sines_then_cosines_from_one_on():
    tokens, width = 16, 10
    expected = np.empty((tokens, width))
    for t in range(tokens):
        for i in range(width // 2):
            angle = (t + 1) / 10_000 ** (i / (width // 2 - 1))
            expected[t, i], expected[t, i + width // 2] = np.sin(angle), np.cos(angle)
    found = Positions(width)(torch.ones(1, tokens, width))[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_a_token_whose_first_channel_is_zero_gets_no_position():
    encoder = CrossModalEncoder(16, 8, layers=1).eval()
    tokens = torch.rand(2, 5, 16) + 0.1
    tokens[0, 3, 0] = 0.0
    tokens[1, 2, 1:] = 0.0  # other channels do not matter
    added = encoder.embed(tokens) - 4 * tokens  # sqrt(16) = 4
    assert added[0, 3].abs().max() < 1e-6
    torch.testing.assert_close(added[1], encoder.embed_positions.table[:5])
    torch.testing.assert_close(added[0, [0, 1, 2, 4]], encoder.embed_positions.table[[0, 1, 2, 4]])


def test_only_va_hides_and_only_late_audio(tiny: VocaList):
    behaviour = tiny.relate(*random_tokens(2))
    for layer in (*behaviour.av.layers, *behaviour.mem.layers):
        assert layer.scores.isfinite().all()
    expected = torch.tensor([[j >= i + 12 for j in range(16)] for i in range(5)])
    for layer in behaviour.va.layers:
        assert torch.equal(torch.isneginf(layer.scores), expected.expand(2, 8, 5, 16))
        assert layer.scores[:, :, ~expected].isfinite().all()


@pytest.mark.parametrize(("queries", "sources"), [(16, 5), (5, 5), (5, 16), (1, 3)])
def test_future_mask_entry_by_entry(queries: int, sources: int):
    mask = future_mask(queries, sources)
    for i in range(queries):
        for j in range(sources):
            assert mask[i, j] == (j - i >= 1 + abs(sources - queries))


def test_a_query_does_not_feel_audio_it_cannot_see(tiny: VocaList):
    video, audio = random_tokens(1)
    changed = audio.clone()
    changed[:, 14] += 1.0  # hidden from rows 0..2
    before, after = (tiny.va_transformer(video, tokens).output[0] for tokens in (audio, changed))
    assert torch.equal(before[:3], after[:3])
    assert (before[3:] - after[3:]).abs().amax(dim=1).min() > 1e-5


def test_dropout_is_where_it_was_published(tiny: VocaList):
    rates = {name: module.p for name, module in tiny.named_modules() if isinstance(module, nn.Dropout)}
    expected = {}
    for encoder in ("av_transformer", "va_transformer", "mem_transformer"):
        expected[f"{encoder}.embedding_dropout"] = 0.25
        for layer in range(4):
            expected[f"{encoder}.layers.{layer}.relu_dropout"] = 0.1
            expected[f"{encoder}.layers.{layer}.residual_dropout"] = 0.1
    assert rates == expected


def test_every_parameter_is_trained(tiny: VocaList):
    model = load_reference(tiny.state_dict(), TINY).train()
    model(*random_windows(4)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
