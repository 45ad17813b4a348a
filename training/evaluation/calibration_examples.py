"""Examples of what a student says of stretches whose truth is known, for its calibration.

Every example is a stretch of a validation clip: with its own sound moved by a known amount, clean or in
noise; or one where no offset is right: with the sound of another clip (as in a dubbing), with music, or of a
face that does not move. Nothing is trained on them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from avsync_cli.confidence import curve_features
from avsync_cli.mel import MelTrack, mel_track
from avsync_cli.model import Student
from avsync_cli.offsets import average_curve, count_windows, find_peak, score_offsets
from avsync_cli.sound import Sound
from avsync_cli.spec import RANGE_FRAMES, SAME_OFFSET_FRAMES, SAMPLE_RATE_HZ, WINDOW_FRAMES
from training.data.augment_mel import from_db, mixed, to_db
from training.data.cache import CachedClip
from training.data.clips import LoadedClip, load_clip
from training.evaluation.measures import is_level

Floats = NDArray[np.float32]

STRETCH_FRAMES = (26, 38, 50, 75, 100, 200)  # 1 s to 8 s; whole clips are added
MARGIN = WINDOW_FRAMES - 1  # a stretch has so many more frames than windows
STRETCHES_PER_CLIP = 12  # of each length, at most
MAX_SHIFT_FRAMES = RANGE_FRAMES - 1
MISMATCHED_SHARE = 0.35  # of the examples: no offset is right
STILL_SHARE, MUSIC_SHARE = 0.15, 0.15  # of those; the rest have the sound of another clip
NOISY_SHARE = 0.3  # of the others: noise is added to their sound
NOISE_DB = (20, 10, 0)  # by how much the voice is louder than it
# A wrong peak is further from the truth than the sources disagree among themselves, or any peak at all where
# no offset is right.
WRONG_PEAK_FRAMES = 2.0
CLEAN, OTHER, MUSIC, STILL = "clean", "another clip's sound", "music", "still face"
NOISY = tuple(f"noise at {level} dB" for level in NOISE_DB)
_MUSIC_S = 20


@dataclass(frozen=True)
class Example:
    """One curve and what is known of it; `error_frames` is None where no offset is right."""

    clip: int  # number of the clip it was cut from
    features: NDArray[np.float64]  # [F]
    windows: int
    lead_frames: float  # of its peak
    error_frames: float | None
    at_edge: bool
    condition: str = CLEAN

    @property
    def is_right(self) -> bool:
        return self.error_frames is not None and abs(self.error_frames) <= SAME_OFFSET_FRAMES

    @property
    def is_level(self) -> bool:
        """Whether an answer of this lead says "in sync"."""
        return is_level(self.lead_frames)

    @property
    def is_wrong_peak(self) -> bool:
        return self.error_frames is None or abs(self.error_frames) > WRONG_PEAK_FRAMES


@dataclass(frozen=True)
class Encoded:
    """A clip's windows: video [V, D] from tick `video_tick`, audio [A, E] from tick `audio_tick`."""

    video: Floats
    audio: Floats
    video_tick: int
    audio_tick: int


@dataclass(frozen=True)
class Material:
    """A clip encoded once for all its examples: as it is, its sound in noise (as `NOISY`), its first frame
    held for as long as the clip [V, D]."""

    own: Encoded
    noisy: tuple[Floats, ...]
    still: Floats
    domain: str = ""


def make_examples(student: Student, cache: Path, clips: list[CachedClip], *, seed: int) -> list[Example]:
    """Examples from every clip; deterministic in the seed."""
    rng = np.random.default_rng(seed)
    loaded = (load_clip(cache, clip) for clip in clips)
    materials = list(_encode(student, loaded, rng=rng))
    track = mel_track(make_music(_MUSIC_S, rng=rng))
    music = student.encode_audio(track, track.all_ticks)
    return list(draw_examples(student, materials, music, rng=rng))


def draw_examples(
    student: Student, materials: list[Material], music: Floats, *, rng: np.random.Generator
) -> Iterator[Example]:
    """Stretches of every length from every clip, moved or mismatched; `music` [A, E]."""
    for number, material in enumerate(materials):
        whole = len(material.own.video)
        lengths = [frames - MARGIN for frames in STRETCH_FRAMES if frames - MARGIN < whole]
        for windows in [*lengths, whole]:
            for _ in range(min(STRETCHES_PER_CLIP, 1 + (whole - windows) // 5)):
                first = int(rng.integers(0, whole - windows + 1))
                if rng.random() < MISMATCHED_SHARE:
                    others = _partners(materials, material)
                    found = _mismatched(material, (first, windows), others, music, rng=rng)
                    example = judge_cut(student, *found, truth=None)
                else:
                    example = _moved(student, material, (first, windows), rng=rng)
                if example is not None:
                    yield replace(example, clip=number)


def _partners(materials: list[Material], material: Material) -> list[Floats]:
    """The sounds [A, E] of the other clips, of the same domain where there are any: the harder to tell."""
    others = [each for each in materials if each is not material]
    alike = [each for each in others if each.domain == material.domain]
    return [each.own.audio for each in alike or others]


def make_music(seconds: float, *, rng: np.random.Generator) -> Sound:
    """Chords of plucked strings over a bass and a hiss on the beat: loud, lively, and no voice."""
    sound = np.zeros(round(seconds * SAMPLE_RATE_HZ))
    beat = round(0.24 * SAMPLE_RATE_HZ)
    time = np.arange(2 * beat) / SAMPLE_RATE_HZ
    for begin in range(0, len(sound) - 2 * beat, beat):
        root = 110 * 2 ** (int(rng.choice([0, 3, 5, 7, 10])) / 12)
        notes = [root / 2, root, *(root * 2 ** (int(step) / 12) for step in rng.choice([3, 4, 7, 12], 2))]
        for note in notes:
            overtones = [np.sin(2 * np.pi * note * k * time) / k for k in range(1, 9)]
            sound[begin : begin + 2 * beat] += np.sum(overtones, axis=0) * np.exp(
                -time / rng.uniform(0.1, 0.4)
            )
        sound[begin : begin + 2 * beat] += rng.standard_normal(2 * beat) * np.exp(-time / 0.02)
    return Sound((0.3 * sound / np.abs(sound).max()).astype(np.float32), 0)


def mix_noise(
    track: MelTrack, other: MelTrack | None, *, snr_db: float, rng: np.random.Generator
) -> MelTrack:
    """A mel with the voices of another (None: steady noise) so many dB below its mean power."""
    steps = len(track.mel)
    if other is None:
        low, high = rng.uniform(-12, 12, 2).tolist()
        noise = rng.normal(-50, 6, (steps, track.mel.shape[1])) + np.linspace(low, high, 80)
    else:
        noise = to_db(torch.from_numpy(np.resize(other.mel, track.mel.shape).astype(np.float32))).numpy()
    levels = to_db(torch.from_numpy(track.mel.astype(np.float32))).unsqueeze(0)
    added = torch.from_numpy(noise.astype(np.float32)).unsqueeze(0)
    sum_of_both = mixed(levels, added, torch.tensor([float(snr_db)]), torch.tensor([True]))
    return replace(track, mel=from_db(sum_of_both)[0].numpy())


def judge_cut(student: Student, encoded: Encoded, condition: str, *, truth: float | None) -> Example | None:
    """What a student says of a stretch whose lead in frames is `truth`; None where there is no peak."""
    scores = score_encoded(student, encoded)
    curve = average_curve(scores)
    peak = find_peak(curve)
    if peak is None:
        return None
    error = None if truth is None else peak.lead_frames - truth
    features, windows = curve_features(scores, curve), count_windows(scores, curve)
    return Example(0, features, windows, peak.lead_frames, error, peak.at_edge, condition)


def score_encoded(student: Student, encoded: Encoded, *, range_frames: int = RANGE_FRAMES) -> Floats:
    """Scores [V, C] of all windows with the sound of every offset."""
    return score_offsets(
        encoded.video,
        encoded.audio,
        first_tick_video=encoded.video_tick,
        first_tick_audio=encoded.audio_tick,
        score=student.score,
        range_frames=range_frames,
    )


def encode_clip(student: Student, clip: LoadedClip) -> Encoded:
    """Encode all windows of a clip."""
    video = student.encode_video(clip.crops, clip.lips.astype(np.float32))
    mel = clip.mel.delayed(student.zero_ms)
    return Encoded(video, student.encode_audio(mel, mel.all_ticks), clip.first_tick, mel.first_tick)


def _encode(student: Student, clips: Iterator[LoadedClip], *, rng: np.random.Generator) -> Iterator[Material]:
    before: MelTrack | None = None
    for clip in clips:
        own, mel = encode_clip(student, clip), clip.mel.delayed(student.zero_ms)
        other = before if rng.random() < 0.5 else None
        noisy = (mix_noise(mel, other, snr_db=level, rng=rng) for level in NOISE_DB)
        first, lips = clip.crops[:1], clip.lips[:1].astype(np.float32)
        held = student.encode_video(first.repeat(WINDOW_FRAMES, 0), lips.repeat(WINDOW_FRAMES, 0))
        yield Material(
            own,
            tuple(student.encode_audio(track, mel.all_ticks) for track in noisy),
            held.repeat(len(own.video), axis=0),
            clip.entry.domain,
        )
        before = clip.mel


def _moved(
    student: Student, material: Material, place: tuple[int, int], *, rng: np.random.Generator
) -> Example | None:
    """A stretch whose sound is moved by a known number of frames.

    Half of them have only the sound of the same length, as a short file, half all that the clip has on
    both sides, as a shot in a longer one.
    """
    whole, condition = material.own, CLEAN
    if rng.random() < NOISY_SHARE:
        level = int(rng.integers(len(NOISE_DB)))
        whole, condition = replace(whole, audio=material.noisy[level]), NOISY[level]
    stretch = _stretch(whole, place)
    cut = _cut_audio(stretch) if rng.random() < 0.5 else stretch
    lead = int(rng.integers(-MAX_SHIFT_FRAMES, MAX_SHIFT_FRAMES + 1))
    return judge_cut(student, replace(cut, audio_tick=cut.audio_tick - lead), condition, truth=float(lead))


def _mismatched(
    material: Material,
    place: tuple[int, int],
    others: list[Floats],
    music: Floats,
    *,
    rng: np.random.Generator,
) -> tuple[Encoded, str]:
    """A stretch for which no offset is right, and why."""
    stretch, windows = _stretch(material.own, place), place[1]
    draw = float(rng.random())
    if draw < STILL_SHARE:
        return replace(stretch, video=material.still[:windows]), STILL
    long_enough = [audio for audio in others if len(audio) >= windows]
    if draw < STILL_SHARE + MUSIC_SHARE or not long_enough:
        sound, condition = music, MUSIC
    else:
        sound, condition = long_enough[int(rng.integers(len(long_enough)))], OTHER
    margin = int(rng.integers(0, RANGE_FRAMES + 1))  # of sound on both sides
    length = windows + 2 * margin
    first = int(rng.integers(0, max(1, len(sound) - length + 1)))
    sound = sound[first : first + length]
    tick = stretch.video_tick - (len(sound) - windows) // 2
    return replace(stretch, audio=sound, audio_tick=tick), condition


def _stretch(whole: Encoded, place: tuple[int, int]) -> Encoded:
    first, windows = place
    return replace(whole, video=whole.video[first : first + windows], video_tick=whole.video_tick + first)


def _cut_audio(stretch: Encoded) -> Encoded:
    """Only the sound of the same ticks, as a file of that length would have it."""
    first = max(stretch.video_tick, stretch.audio_tick)
    last = min(stretch.video_tick + len(stretch.video), stretch.audio_tick + len(stretch.audio))
    rows = slice(first - stretch.audio_tick, max(first, last) - stretch.audio_tick)
    return replace(stretch, audio=stretch.audio[rows], audio_tick=first)
