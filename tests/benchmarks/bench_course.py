"""How often a constant offset is called anything else, and how often edits and drifts are found.

    python tests/benchmarks/bench_course.py --cache CACHE [--files 100]

Files are put together from scenes of 3 to 15 s: stretches of validation clips of 2 s and more, moved to a
lead that is known at every moment; 15 % of the scenes have no face, 15 % the sound of another clip. A
clip's own zero is taken from its whole curve, and every scene is off by 10 ms (standard deviation) more.
`CACHE` is that of `python -m training prepare`.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from avsync_cli.course import Course
from avsync_cli.model import Student, load_student
from avsync_cli.offsets import average_curve, find_peak
from avsync_cli.timeline import trace_course
from training.data.cache import read_manifest
from training.data.clips import load_clip
from training.evaluation.calibration_examples import encode_clip, score_encoded

WIDE = 40  # frames that are scored, for the ±15 around any lead of up to 24
MARGIN = WIDE + 50  # of other sound on both sides of a clip's own
NO_FACE, OTHER_VOICE, WOBBLE_FRAMES = 0.15, 0.15, 0.25
LeadAt = Callable[[np.ndarray, float], np.ndarray | float]  # of times, and of a file's own number


@dataclass(frozen=True)
class Scored:
    """Scores [V, 81] of a clip with its own sound, and with another's; `lead_frames` is its zero."""

    own: np.ndarray
    other: np.ndarray
    lead_frames: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--files", type=int, default=100)
    options = parser.parse_args()
    student = load_student(threads=1)
    clips = score_clips(student, options.cache)
    print(f"{len(clips)} clips, {sum(len(clip.own) for clip in clips) / 25:.0f} s")
    for seconds in (30, 60, 300):
        courses = draw_courses(clips, student, options.files, seconds, lambda _t, lead: lead)
        others = sum(course.kind != "constant" for course, _ in courses)
        print(f"constant, {seconds} s: {others} of {len(courses)} called something else")
    for seconds in (60, 300):
        for ms in (40, 80, 120, 200):
            courses = draw_courses(
                clips,
                student,
                options.files,
                seconds,
                stepping(ms / 40),
            )
            found = [(course, lead) for course, lead in courses if len(course.steps) == 1]
            ends = np.linspace(0, seconds, 2)
            errors = [abs(course.steps[0].at_s - at_of(lead, ends)) for course, lead in found]
            near = np.mean(np.array(errors) <= 1) if errors else 0
            share = len(found) / len(courses)
            print(f"step of {ms} ms, {seconds} s: {share:.0%} found, {near:.0%} of them to 1 s")
        for slope in (10, 20, 50, 100):
            courses = draw_courses(
                clips,
                student,
                options.files,
                seconds,
                drifting(slope / 40 / 60, seconds),
            )
            drifts = [course for course, _ in courses if course.kind == "drift"]
            errors = [abs(course.drift_ms_per_min - slope) for course in drifts]
            covered = np.mean(
                [e <= (c.drift_uncertainty or 0) for e, c in zip(errors, drifts, strict=True)] or [False]
            )
            middle = np.median(errors) if errors else float("nan")
            print(
                f"drift of {slope} ms/min, {seconds} s: {len(drifts) / len(courses):.0%} found, "
                f"median error {middle:.1f} ms/min, {covered:.0%} covered"
            )


def stepping(change: float) -> LeadAt:
    """Leads that change once."""
    return lambda times_s, at: at / 2 + change * (times_s >= at_of(at, times_s))


def drifting(per_s: float, seconds: float) -> LeadAt:
    """Leads that grow by so many frames a second."""
    return lambda times_s, lead: lead / 2 + per_s * (times_s - seconds / 2)


def at_of(lead: float, times_s: np.ndarray) -> float:
    """Where the edit of a file is: between a quarter and three quarters of it, different for every lead."""
    return float(times_s.max()) * (0.5 + lead / 32)


def draw_courses(
    clips: list[Scored],
    student: Student,
    files: int,
    seconds: float,
    lead_at: LeadAt,
) -> list[tuple[Course, float]]:
    """The courses found in so many files, each with the number in -8..8 that its leads were made from."""
    rng = np.random.default_rng(0)
    courses: list[tuple[Course, float]] = []
    calibration = student.calibration
    assert calibration is not None
    while len(courses) < files:
        lead = float(rng.uniform(-8, 8))
        times_s = np.arange(int(seconds * 25)) / 25
        leads = np.broadcast_to(lead_at(times_s, lead), len(times_s))
        ticks, scores = make_file(clips, leads, rng)
        course, _ = trace_course(ticks, scores, calibration)
        courses += [] if course is None else [(course, lead)]
    return courses


def make_file(
    clips: list[Scored], leads: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Ticks [V] and scores [V, 31] of scenes whose leads are those of their ticks."""
    tick, ticks, scores = 0, [np.zeros(0, np.int64)], [np.zeros((0, 31), np.float32)]
    while tick < len(leads):
        length = int(rng.uniform(3, 15) * 25)
        kind = rng.random()
        if kind >= NO_FACE:
            clip = clips[int(rng.integers(len(clips)))]
            source = clip.other if kind < NO_FACE + OTHER_VOICE else clip.own
            length = min(length, len(source), len(leads) - tick)
            first = int(rng.integers(0, len(source) - length + 1))
            moves = leads[tick : tick + length] - clip.lead_frames + rng.normal(0, WOBBLE_FRAMES)
            scores.append(move_scores(source[first : first + length], moves))
            ticks.append(tick + np.arange(length))
        tick += length
    return np.concatenate(ticks), np.concatenate(scores)


def move_scores(scores: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Scores [V, 81] with each row moved by its own part of frames, cubically: [V, 31]."""
    whole = np.floor(moves).astype(int)
    f = 1 - (moves - whole)[:, None]
    weights = ((2 - f) * f - 1) * f, (3 * f - 5) * f * f + 2, ((4 - 3 * f) * f + 1) * f, (f - 1) * f * f
    columns = WIDE - 16 - whole[:, None] + np.arange(31)
    taps = [
        0.5 * w * np.take_along_axis(scores, columns + t, 1)
        for w, t in zip(weights, range(-1, 3), strict=True)
    ]
    moved: np.ndarray = np.sum(taps, axis=0).astype(np.float32)
    return moved


def score_clips(student: Student, cache: Path) -> list[Scored]:
    """Validation clips of 2 s and more, with the sound of others before, behind and instead of their own."""
    clips = [clip for clip in read_manifest(cache) if clip.split == "val" and clip.reason is None]
    encoded = [
        clip for each in clips if len((clip := encode_clip(student, load_clip(cache, each))).video) >= 50
    ]
    rng, scored = np.random.default_rng(0), []
    for clip in encoded:
        sounds = [other.audio for other in encoded if other is not clip]
        rng.shuffle(sounds)
        others = np.concatenate(sounds)
        around = np.concatenate([others[:MARGIN], clip.audio, others[MARGIN : 2 * MARGIN]])
        narrow = score_encoded(student, clip)
        own, other = (
            score_encoded(
                student, replace(clip, audio=sound, audio_tick=clip.audio_tick - MARGIN), range_frames=WIDE
            )
            for sound in (around, others[2 * MARGIN : 2 * MARGIN + len(around)])
        )
        peak = find_peak(average_curve(narrow))
        if peak is not None and not peak.at_edge and np.isfinite(own).all() and np.isfinite(other).all():
            scored.append(Scored(own, other, peak.lead_frames))
    return scored


if __name__ == "__main__":
    main()
