"""Any configuration at a size that runs in seconds: two steps of a small batch through tiny networks.

What a run does stays as configured: method, relations, weighting, optimiser, what is observed. Its weights to
start from are left out, as they are of another size; a teacher's are not, so a small teacher comes first.
"""

from dataclasses import replace
from typing import Any

from training.baseline_recipe import DEFAULT_CANDIDATES, BaselineConfig
from training.config import WINDOW_NETWORK, MatchConfig, ModelConfig
from training.networks.avst import AVST_SMALL
from training.networks.two_stream import TWO_STREAM_SMALL
from training.recipe import NetworkConfig, PairsConfig, Recipe, ValidationConfig

STEPS = 2
_BATCH = 3  # the least that has an angle between pairs, as RKD compares them
_BASELINE_BATCH = 4  # which two or four processes can share
_VALIDATION_PAIRS = 4
_CANDIDATES = 8

_SMALL_ENCODERS: dict[str, Any] = {
    "sizes": {"video_widths": [8, 8, 8], "video_blocks": [1, 1, 1], "lips_width": 8},
    "audio_widths": [8, 8, 8, 8],
}
# A teacher is wider than its student here too; widths are divisible by the eight heads.
_SMALL_DIMS: dict[str, dict[str, Any]] = {
    "vocalist": {"width": 24, "channels": [2, 2, 2, 2, 24]},
    "mtdvocalist": {"width": 16, "channels": [2, 2, 2, 2, 16]},
    "vocalist-compact": {"width": 24, **_SMALL_ENCODERS},
    "mtdvocalist-edge": {"width": 16, **_SMALL_ENCODERS},
}
_SMALL_MODEL = ModelConfig(
    embedding=8, video_widths=(8, 8, 8), video_blocks=(1, 1, 1), lips_width=8, audio_widths=(8, 8, 8, 8)
)


def shrink_recipe(recipe: Recipe) -> Recipe:
    """A recipe of `teacher` or `distill` in two steps, each followed by a validation."""
    return replace(
        recipe,
        network=replace(_shrink_network(recipe.network), weights=None),
        teacher=None if recipe.teacher is None else _shrink_network(recipe.teacher),
        data=_shrink_data(recipe.data),
        validation=_shrink_validation(recipe.validation),
        threads=1,
        log_every=1,
        max_steps=STEPS,
    )


def shrink_baseline(config: BaselineConfig) -> BaselineConfig:
    """A baseline in two steps, each followed by a validation."""
    candidates = None
    if config.method != "contrastive":
        candidates = min(config.candidates or DEFAULT_CANDIDATES, _CANDIDATES)
    return replace(
        config,
        network=(AVST_SMALL if config.method == "offsets" else TWO_STREAM_SMALL).name,
        candidates=candidates,
        data=_shrink_data(config.data, batch=_BASELINE_BATCH),
        validation=_shrink_validation(config.validation),
        threads=1,
        log_every=1,
        max_steps=STEPS,
    )


def shrink_match(config: MatchConfig) -> MatchConfig:
    """A matching run in two steps and a validation of short pieces; compact networks keep their size.

    Whatever is trained on may lack the sources that the run leaves out.
    """
    return replace(
        config,
        steps=STEPS,
        end_at=None,
        start=None,
        threads=1,
        log_every=1,
        validate_every=STEPS,
        validate_frames=20,
        data=replace(config.data, clips=_BATCH, windows=12, min_windows=8, leave_out=()),
        model=_SMALL_MODEL if config.network == WINDOW_NETWORK else config.model,
    )


def _shrink_network(network: NetworkConfig) -> NetworkConfig:
    return replace(network, dims=network.dims | _SMALL_DIMS.get(network.preset, {}))


def _shrink_data(data: PairsConfig, *, batch: int = _BATCH) -> PairsConfig:
    """A small batch; an epoch that takes every clip stays so, as shards allow no other."""
    batch *= data.micro_batches
    return replace(data, batch=batch, epoch_pairs=data.epoch_pairs and batch, epochs=STEPS)


def _shrink_validation(validation: ValidationConfig) -> ValidationConfig:
    return replace(validation, pairs=_VALIDATION_PAIRS, every_epochs=None, every_steps=1)
