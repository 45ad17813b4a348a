"""Augmentation: small functions on tensors, each with the generator that it draws from.

C clips, F frames: crops float32 [C, F, 48, 96] in 0..255, lips float32 [C, F, 40, 3]. The sound's
functions are in `augment_mel`. `which` is bool [C]: the clips that a function changes.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from avsync_cli.lips import LIP_MIRROR
from training.config import AugmentConfig


def augment_video(
    crops: Tensor, lips: Tensor, config: AugmentConfig, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """All changes of the picture and the lips, clip by clip: crops uint8 -> float32."""
    clips = len(crops)
    pictures = crops.float()
    pictures, lips = flip(pictures, lips, chosen(clips, config.flip, rng))
    pictures = move(pictures, chosen(clips, config.move, rng), config, rng)
    pictures = change_light(pictures, chosen(clips, config.light, rng), rng)
    pictures = lower_resolution(pictures, chosen(clips, config.low_resolution, rng), rng)
    pictures = blur(pictures, chosen(clips, config.blur, rng), rng)
    pictures = add_noise(pictures, chosen(clips, config.noise, rng), rng)
    pictures = erase(pictures, chosen(clips, config.erase, rng), rng)
    lips = centre(lips, chosen(clips, config.short_track, rng))
    lips = vary_lips(lips, zoom=config.lips_zoom, noise=config.lips_noise, rng=rng)
    return drop_one(pictures, lips, crops_chance=config.drop_crops, lips_chance=config.drop_lips, rng=rng)


def chosen(clips: int, chance: float, rng: torch.Generator) -> Tensor:
    """Which of the clips something happens to: bool [C]."""
    return torch.rand(clips, generator=rng) < chance


def uniform(shape: tuple[int, ...], low: float, high: float, rng: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=rng)


def flip(crops: Tensor, lips: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror picture and geometry: left and right lip points change places and x its sign."""
    mirrored = lips[:, :, torch.from_numpy(LIP_MIRROR)] * torch.tensor([-1.0, 1.0, 1.0])
    pick = which.view(-1, 1, 1, 1)
    return torch.where(pick, crops.flip(-1), crops), torch.where(pick, mirrored, lips)


def move(crops: Tensor, which: Tensor, config: AugmentConfig, rng: torch.Generator) -> Tensor:
    """Shift, zoom and turn: one transform a clip, with a little more in each frame."""
    clips, frames, height, width = crops.shape
    ranges = torch.tensor(
        [config.shift * 2, config.shift * 2, config.zoom, math.radians(config.rotate_degrees)]
    )
    shared = uniform((clips, 1, 4), -1, 1, rng)
    own = config.jitter * uniform((clips, frames, 4), -1, 1, rng)
    shift_x, shift_y, zoom, angle = ((shared + own) * ranges * which.view(-1, 1, 1)).flatten(0, 1).unbind(1)
    scale, aspect = 1 / (1 + zoom), height / width
    cos, sin = scale * angle.cos(), scale * angle.sin()
    # affine_grid works in units of half the width and half the height: turning must mind their ratio.
    theta = torch.stack([cos, -sin * aspect, shift_x, sin / aspect, cos, shift_y], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, [clips * frames, 1, height, width], align_corners=False)
    moved = F.grid_sample(crops.view(-1, 1, height, width), grid, padding_mode="border", align_corners=False)
    return moved.view_as(crops)


def change_light(crops: Tensor, which: Tensor, rng: torch.Generator) -> Tensor:
    """Gamma, contrast and brightness."""
    gamma = uniform((len(crops), 1, 1, 1), -0.5, 0.5, rng).exp()[which]
    contrast = uniform((len(crops), 1, 1, 1), 0.6, 1.4, rng)[which]
    brightness = uniform((len(crops), 1, 1, 1), -40, 40, rng)[which]
    changed = (crops[which] / 255).clamp(0, 1).pow(gamma) * 255
    return _replaced(crops, which, ((changed - 128) * contrast + 128 + brightness).clamp(0, 255))


def lower_resolution(crops: Tensor, which: Tensor, rng: torch.Generator) -> Tensor:
    """Shrink and enlarge again, as a face that is small in its picture."""
    factors = uniform((len(crops),), 0.35, 0.9, rng)
    result = crops.clone()
    for c in which.nonzero().flatten().tolist():
        clip = crops[c].unsqueeze(0)
        height, width = (max(8, round(side * float(factors[c]))) for side in clip.shape[-2:])
        small = F.interpolate(clip, (height, width), mode="bilinear", antialias=True)
        result[c] = F.interpolate(small, clip.shape[-2:], mode="bilinear")[0]
    return result


def blur(crops: Tensor, which: Tensor, rng: torch.Generator) -> Tensor:
    """Gaussian blur of 0.5 to 2 pixels."""
    sigmas = uniform((len(crops),), 0.5, 2.0, rng)
    places = torch.arange(-4.0, 5.0)
    result = crops.clone()
    for c in which.nonzero().flatten().tolist():
        kernel = torch.exp(-0.5 * (places / sigmas[c]) ** 2)
        kernel = kernel / kernel.sum()
        clip = F.pad(crops[c].unsqueeze(1), (4, 4, 4, 4), mode="replicate")
        clip = F.conv2d(F.conv2d(clip, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
        result[c] = clip.squeeze(1)
    return result


def add_noise(crops: Tensor, which: Tensor, rng: torch.Generator) -> Tensor:
    """Sensor noise of up to 12 grey levels, new in each frame."""
    sigma = uniform((len(crops), 1, 1, 1), 1, 12, rng)[which]
    clean = crops[which]
    return _replaced(crops, which, clean + sigma * torch.randn(clean.shape, generator=rng))


def erase(crops: Tensor, which: Tensor, rng: torch.Generator) -> Tensor:
    """Cover a rectangle with grey, as a hand, a microphone or a caption does."""
    clips, _, height, width = crops.shape
    size = uniform((clips, 2), 0.2, 0.5, rng)
    corner = uniform((clips, 2), 0, 1, rng) * (1 - size)
    down, right = torch.arange(height) / height, torch.arange(width) / width
    in_rows = (down >= corner[:, :1]) & (down < corner[:, :1] + size[:, :1])  # [C, H]
    in_columns = (right >= corner[:, 1:]) & (right < corner[:, 1:] + size[:, 1:])  # [C, W]
    covered = in_rows.unsqueeze(2) & in_columns.unsqueeze(1) & which.view(-1, 1, 1)
    grey = uniform((clips, 1, 1, 1), 0, 255, rng)
    return torch.where(covered.unsqueeze(1), grey, crops)


def centre(lips: Tensor, which: Tensor) -> Tensor:
    """Take out the mean shape of the section, as if the track had been no longer than it."""
    return torch.where(which.view(-1, 1, 1, 1), lips - lips.mean(1, keepdim=True), lips)


def vary_lips(lips: Tensor, *, zoom: float, noise: float, rng: torch.Generator) -> Tensor:
    scale = uniform((len(lips), 1, 1, 1), 1 - zoom, 1 + zoom, rng)
    return lips * scale + noise * torch.randn(lips.shape, generator=rng)


def drop_one(
    crops: Tensor, lips: Tensor, *, crops_chance: float, lips_chance: float, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Blank the crops or the lips of some clips, never both, so that both paths learn."""
    draw = torch.rand(len(crops), generator=rng).view(-1, 1, 1, 1)
    no_crops = draw < crops_chance
    no_lips = draw >= 1 - lips_chance
    return torch.where(no_crops, 128.0, crops), torch.where(no_lips, 0.0, lips)


def _replaced(values: Tensor, which: Tensor, part: Tensor) -> Tensor:
    result = values.clone()
    result[which] = part
    return result
