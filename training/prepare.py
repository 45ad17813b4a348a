"""Decode the corpus once: mouth crops, lip geometry and mels of every clip into a cache.

Faces and mels are made by the tool's own code, so training sees what serving sees.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import cache as remember
from pathlib import Path

import numpy as np

from avsync_cli.errors import AvsyncError, MediaError
from avsync_cli.faces import FaceModels
from avsync_cli.media import open_media
from avsync_cli.mel import mel_track
from avsync_cli.sound import Sound
from avsync_cli.spec import SAMPLES_PER_FRAME
from avsync_cli.tracks import FaceTrack, track_faces
from training.cache import (
    CachedClip,
    audio_path,
    open_cache,
    sha256_of,
    video_path,
    write_arrays,
    write_manifest,
)
from training.corpus import Clip
from training.progress import Progress


def prepare(corpus: Path, clips: list[Clip], cache: Path, *, jobs: int) -> list[CachedClip]:
    """Prepare the clips that the cache does not hold yet, and write its manifest.

    Clips of an earlier run that are not among `clips` stay in the manifest.
    """
    cache.mkdir(parents=True, exist_ok=True)
    done = {clip.file: clip for clip in open_cache(cache)}
    longest_first = sorted(clips, key=lambda clip: -clip.seconds)
    context = multiprocessing.get_context("spawn")
    total_s = sum(clip.seconds for clip in clips)
    with (
        ProcessPoolExecutor(jobs, context) as pool,
        Progress("prepare", total_s, unit="s of video") as progress,
    ):
        waiting = {pool.submit(prepare_clip, corpus, clip, cache): clip for clip in longest_first}
        for future in as_completed(waiting):
            clip = waiting[future]
            done[clip.file] = future.result()
            if done[clip.file].reason is not None:
                progress.note(f"{clip.file}: left out, {done[clip.file].reason}")
            progress.advance(clip.seconds)
    write_manifest(cache, list(done.values()))
    return [done[clip.file] for clip in clips]


def prepare_clip(corpus: Path, clip: Clip, cache: Path) -> CachedClip:
    """Bring both parts of one clip up to date; never raises for what is wrong with its file."""
    entry = CachedClip(clip.file, clip.split, clip.source, clip.domain, clip.machine_made, clip.lead_frames)
    if clip.left_out is not None:
        return replace(entry, reason=clip.left_out)
    try:
        frames = _write_parts(corpus / clip.file, clip, cache)
    except (AvsyncError, ValueError) as error:
        return replace(entry, reason=str(error))
    return replace(
        entry,
        frames=frames,
        video_sha256=sha256_of(video_path(cache, clip.file)),
        audio_sha256=sha256_of(audio_path(cache, clip.file)),
    )


def advance_samples(lead_frames: float) -> int:
    """By how many samples to delay the sound of a clip whose audio leads."""
    return round(lead_frames * SAMPLES_PER_FRAME)


def _write_parts(path: Path, clip: Clip, cache: Path) -> int:
    """Write what is missing or out of date; return the number of frames of the longest face track."""
    video, audio = video_path(cache, clip.file), audio_path(cache, clip.file)
    advance = advance_samples(clip.lead_frames)
    has_video, has_audio = video.exists(), _advance_of(audio) == advance
    if not (has_video and has_audio):
        with open_media(path, threads=1) as media:
            if not media.has_audio:
                raise MediaError("no audio stream", "no_audio")
            if has_video:
                for _ in media.pictures():
                    pass  # the grid's origin and all of the sound are known only after the pictures
            else:
                _write_video(video, longest_track(list(track_faces(media.pictures(), _face_models()))))
            sound = media.sound()
        if sound is None:
            raise MediaError("no sound could be decoded", "no_audio")
        _write_audio(audio, sound, advance)
    with np.load(video) as arrays:
        return len(arrays["crops"])


def longest_track(tracks: list[FaceTrack]) -> FaceTrack:
    """The face to train on. Raises ValueError where there is none."""
    if not tracks:
        raise ValueError("no face")
    return max(tracks, key=lambda track: len(track.crops))


def _write_video(path: Path, track: FaceTrack) -> None:
    write_arrays(
        path,
        {
            "crops": track.crops,
            "lips": track.lips.astype(np.float16),
            "first_tick": np.array(track.first_tick),
        },
    )


def _write_audio(path: Path, sound: Sound, advance: int) -> None:
    """Write the mel of the sound delayed by `advance` samples."""
    track = mel_track(replace(sound, first_sample=sound.first_sample + advance))
    write_arrays(
        path,
        {
            "mel": track.mel.astype(np.float16),
            "origin_tick": np.array(track.origin_tick),
            "first_tick": np.array(track.first_tick),
            "ticks": np.array(track.ticks),
            "advance_samples": np.array(advance),
        },
    )


def _advance_of(path: Path) -> int | None:
    if not path.exists():
        return None
    with np.load(path) as arrays:
        return int(arrays["advance_samples"])


@remember
def _face_models() -> FaceModels:
    """One set of sessions for each worker process."""
    return FaceModels(threads=1)
