"""Clips in memory whose frames hold their own numbers and whose sound is noise of a given level."""

import numpy as np
from numpy.typing import ArrayLike

from avsync_cli.mel import mel_track
from avsync_cli.sound import Sound
from training.data.cache import CachedClip
from training.data.clips import LoadedClip


def made_clip(
    frames: int = 40,
    sounds: int = 40,
    *,
    first_tick: int = 0,
    sound_tick: int = 0,
    level: ArrayLike = 0.1,
    domain: str = "wild",
    name: str = "0",
) -> LoadedClip:
    """A clip whose frames and mel steps hold their own numbers, with noise for its sound's energy."""
    entry = CachedClip(f"{domain}/{name}.mp4", "train", "made", domain, False, 0.0, frames)
    crops = np.broadcast_to(np.arange(frames, dtype=np.uint8)[:, None, None], (frames, 48, 96))
    lips = np.broadcast_to(np.arange(frames, dtype=np.float16)[:, None, None], (frames, 40, 3))
    samples = np.random.default_rng(0).standard_normal(640 * sounds).astype(np.float32)
    mel = mel_track(Sound((np.broadcast_to(level, sounds).repeat(640) * samples), sound_tick * 640))
    return LoadedClip(entry, crops, lips, first_tick, mel)
