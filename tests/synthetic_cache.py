"""A tiny cache whose mouths move with their sound, so that training on it can learn something."""

import sys
from pathlib import Path

import numpy as np

from avsync_cli.mel import mel_track
from avsync_cli.sound import Sound
from training.data.cache import CachedClip, audio_path, sha256_of, video_path, write_arrays, write_manifest

DOMAINS = ("wild", "broadcast", "generated", "lab")  # all that the shipped configurations name


def make_cache(
    cache: Path, *, clips: int = 6, frames: int = 40, seed: int = 0, domains: tuple[str, ...] = DOMAINS[:2]
) -> Path:
    """Write `clips` clips, every third of them val, of all domains in turn; returns the cache's folder."""
    rng = np.random.default_rng(seed)
    cache.mkdir(parents=True, exist_ok=True)
    entries = []
    for number in range(clips):
        domain = domains[number % len(domains)]
        split = "val" if number % 3 == 2 else "train"
        file = f"{domain}/{number}.mp4"
        loud = np.repeat(rng.random(frames // 2 + 1), 2)[:frames].astype(np.float32)
        video, audio = video_path(cache, file), audio_path(cache, file)
        write_arrays(video, _video(loud, rng))
        write_arrays(audio, _audio(loud, rng))
        hashes = sha256_of(video), sha256_of(audio)
        entries.append(CachedClip(file, split, "made", domain, False, 0.0, frames, *hashes))
    write_manifest(cache, entries)
    return cache


def _video(loud: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A dark mouth that opens as wide as the sound is loud."""
    crops = rng.integers(120, 140, (len(loud), 48, 96)).astype(np.uint8)
    for frame, level in zip(crops, loud, strict=True):
        half = 1 + round(15 * float(level))
        frame[24 - half : 24 + half, 30:66] = 40
    lips = np.zeros((len(loud), 40, 3), np.float16)
    lips[:, 20:, 1] = (loud - loud.mean())[:, None]
    lips[:, 3, 1] = loud.mean() - loud  # the inner lower lip, which a student made by hand looks at
    return {"crops": crops, "lips": lips, "first_tick": np.array(0)}


def _audio(loud: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    level = np.repeat(loud, 640)
    track = mel_track(Sound((0.1 * level * rng.standard_normal(len(level))).astype(np.float32), 0))
    return {
        "mel": track.mel.astype(np.float16),
        "origin_tick": np.array(track.origin_tick),
        "first_tick": np.array(track.first_tick),
        "ticks": np.array(track.ticks),
        "advance_samples": np.array(0),
    }


if __name__ == "__main__":
    make_cache(Path(sys.argv[1]), clips=24, frames=60, domains=DOMAINS)
