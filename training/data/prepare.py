"""Decode clips once: their crops, lip geometry and mels into a cache.

Grey crops and mels are made by the tool's own code, so training sees what serving sees. What crops there are
besides says `cache`.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache as remember
from pathlib import Path

import numpy as np

from avsync_cli.errors import AvsyncError, ConfigError, MediaError
from avsync_cli.faces import FaceModels
from avsync_cli.media import Media, open_media, read_sound_file
from avsync_cli.mel import mel_track
from avsync_cli.sound import Sound
from avsync_cli.spec import LIP_POINTS, SAMPLES_PER_FRAME, VIDEO_FPS
from avsync_cli.tracks import FaceTrack, track_faces
from training.data.cache import (
    GREY,
    PUBLISHED,
    PUBLISHED_OWN_BOXES,
    SOUND_FULL_SCALE,
    CachedClip,
    audio_path,
    open_cache,
    sha256_of,
    video_path,
    write_arrays,
    write_manifest,
)
from training.data.corpus import Clip
from training.data.facecrops import FaceCrops, crop_faces, read_face_folder
from training.progress import Progress

SOUND_OF_FOLDER = "audio.wav"


@dataclass(frozen=True)
class Task:
    """A clip to be prepared: a video, or a folder of face crops `0.jpg` ... and their `audio.wav`.

    `entry` is what is known of it before; one with a reason is only listed. `size` is its share of the work.
    """

    entry: CachedClip
    path: Path
    size: float


def prepare(corpus: Path, clips: list[Clip], cache: Path, *, jobs: int) -> list[CachedClip]:
    """Prepare clips of a corpus, with grey crops (see `fill_cache`)."""
    return fill_cache(cache, corpus_tasks(corpus, clips), jobs=jobs, crop=GREY, unit="s of video")


def prepare_clip(corpus: Path, clip: Clip, cache: Path) -> CachedClip:
    """Bring both parts of one clip of a corpus up to date, with grey crops."""
    return run_task(corpus_tasks(corpus, [clip])[0], cache, GREY)


def corpus_tasks(corpus: Path, clips: list[Clip]) -> list[Task]:
    """The clips of a corpus as tasks."""
    tasks = []
    for clip in clips:
        known = (clip.file, clip.split, clip.source, clip.domain, clip.machine_made, clip.lead_frames)
        tasks.append(Task(CachedClip(*known, reason=clip.left_out), corpus / clip.file, clip.seconds))
    return tasks


def fill_cache(
    cache: Path, tasks: list[Task], *, jobs: int, crop: str, unit: str, sound: bool = False
) -> list[CachedClip]:
    """Prepare the clips that the cache does not hold yet, and write its manifest.

    Clips of an earlier run that are not among `tasks` stay in the manifest. `unit` is that of the sizes,
    `sound` asks for the samples too, beside their mel.
    Raises ConfigError where the cache holds crops of another kind.
    """
    cache.mkdir(parents=True, exist_ok=True)
    done = {clip.file: clip for clip in open_cache(cache, crop=crop)}
    longest_first = sorted(tasks, key=lambda task: -task.size)
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(jobs, context) as pool,
        Progress("prepare", sum(task.size for task in tasks), unit=unit) as progress,
    ):
        waiting = {pool.submit(run_task, task, cache, crop, sound=sound): task for task in longest_first}
        for future in as_completed(waiting):
            task, entry = waiting[future], future.result()
            done[entry.file] = entry
            if entry.reason is not None:
                progress.note(f"{entry.file}: left out, {entry.reason}")
            progress.advance(task.size)
    write_manifest(cache, list(done.values()), crop=crop)
    return [done[task.entry.file] for task in tasks]


def crop_kind(tasks: list[Task], *, wanted: str | None) -> str:
    """The kind of crops to make: `grey`, `published`, or what suits the clips.

    Raises ConfigError where the clips cannot all give the same.
    """
    folders = {task.path.is_dir() for task in tasks if task.entry.reason is None}
    if folders == {True, False}:
        raise ConfigError("some clips are videos and some are folders of faces; prepare them into two caches")
    if True in folders:
        if wanted == GREY:
            raise ConfigError("folders of faces give published crops only; leave out --crop grey")
        return PUBLISHED
    return PUBLISHED_OWN_BOXES if wanted == PUBLISHED else GREY


def run_task(task: Task, cache: Path, crop: str, *, sound: bool = False) -> CachedClip:
    """Bring both parts of one clip up to date; never raises for what is wrong with its file."""
    entry = task.entry
    if entry.reason is not None:
        return entry
    try:
        frames = _write_parts(task, cache, crop, with_sound=sound)
    except (AvsyncError, ValueError) as error:
        return replace(entry, reason=str(error))
    return replace(
        entry,
        frames=frames,
        video_sha256=sha256_of(video_path(cache, entry.file)),
        audio_sha256=sha256_of(audio_path(cache, entry.file)),
    )


def describe_prepared(entries: list[CachedClip]) -> str:
    """How many clips were kept, in all and of each split."""
    splits = sorted({entry.split for entry in entries})
    groups = [("", entries), *((f"{split}: ", [e for e in entries if e.split == split]) for split in splits)]
    return "\n".join(name + _count(members) for name, members in groups)


def _count(entries: list[CachedClip]) -> str:
    kept = [entry for entry in entries if entry.reason is None]
    minutes = sum(entry.frames for entry in kept) / (60 * VIDEO_FPS)
    return f"{len(kept)} clips, {minutes:.1f} minutes; {len(entries) - len(kept)} left out"


def advance_samples(lead_frames: float) -> int:
    """By how many samples to delay the sound of a clip whose audio leads."""
    return round(lead_frames * SAMPLES_PER_FRAME)


def _write_parts(task: Task, cache: Path, crop: str, *, with_sound: bool) -> int:
    """Write what is missing or out of date; return the number of frames of the longest face track."""
    video, audio = video_path(cache, task.entry.file), audio_path(cache, task.entry.file)
    advance = advance_samples(task.entry.lead_frames)
    has_video, has_audio = video.exists(), _holds(audio, advance, with_sound=with_sound)
    if not (has_video and has_audio):
        if task.path.is_dir():
            if not has_video:
                _write_crops(video, read_face_folder(task.path))
            sound = read_sound_file(task.path / SOUND_OF_FOLDER)
        else:
            sound = _read_media(task.path, None if has_video else video, crop)
        _write_audio(audio, sound, advance, with_sound=with_sound)
    with np.load(video) as arrays:
        return len(arrays["crops"])


def _read_media(path: Path, video: Path | None, crop: str) -> Sound:
    """Decode a file once: its pictures into the part `video` (None: it is there), and its sound."""
    with open_media(path, threads=1) as media:
        if not media.has_audio:
            raise MediaError("no audio stream", "no_audio")
        if video is None:
            for _ in media.pictures():
                pass  # the grid's origin and all of the sound are known only after the pictures
        else:
            _write_video(video, media, crop)
        sound = media.sound()
    if sound is None:
        raise MediaError("no sound could be decoded", "no_audio")
    return sound


def longest_track(tracks: list[FaceTrack]) -> FaceTrack:
    """The face to train on. Raises ValueError where there is none."""
    if not tracks:
        raise ValueError("no face")
    return max(tracks, key=lambda track: len(track.crops))


def _write_video(path: Path, media: Media, crop: str) -> None:
    if crop != GREY:
        _write_crops(path, crop_faces(media.pictures(), _face_models()))
        return
    track = longest_track(list(track_faces(media.pictures(), _face_models())))
    write_arrays(
        path,
        {
            "crops": track.crops,
            "lips": track.lips.astype(np.float16),
            "first_tick": np.array(track.first_tick),
        },
    )


def _write_crops(path: Path, faces: FaceCrops) -> None:
    """Write RGB crops; the published networks take no lip geometry."""
    lips = np.zeros((len(faces.crops), LIP_POINTS, 3), np.float16)
    write_arrays(path, {"crops": faces.crops, "lips": lips, "first_tick": np.array(faces.first_tick)})


def _write_audio(path: Path, sound: Sound, advance: int, *, with_sound: bool) -> None:
    """Write the mel of the sound delayed by `advance` samples, and these where they are asked for."""
    moved = replace(sound, first_sample=sound.first_sample + advance)
    track = mel_track(moved)
    arrays = {
        "mel": track.mel.astype(np.float16),
        "origin_tick": np.array(track.origin_tick),
        "first_tick": np.array(track.first_tick),
        "ticks": np.array(track.ticks),
        "advance_samples": np.array(advance),
    }
    if with_sound:
        lead_in = moved.first_sample - track.origin_tick * SAMPLES_PER_FRAME
        scaled = (moved.samples.clip(-1, 1) * SOUND_FULL_SCALE).round().astype(np.int16)
        arrays["sound"] = np.pad(scaled, (lead_in, 0))
    write_arrays(path, arrays)


def _holds(path: Path, advance: int, *, with_sound: bool) -> bool:
    """Whether the part of the sound is there, delayed so, and with its samples where they are asked for."""
    if not path.exists():
        return False
    with np.load(path) as arrays:
        return int(arrays["advance_samples"]) == advance and (not with_sound or "sound" in arrays)


@remember
def _face_models() -> FaceModels:
    """One set of sessions for each worker process."""
    return FaceModels(threads=1)
