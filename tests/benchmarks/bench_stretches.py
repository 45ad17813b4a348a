"""How often a stretch of an hour whose sound is late or early is found, and what an hour in sync is called.

    python tests/benchmarks/bench_stretches.py --cache CACHE [--files 100] [--minutes 60]

Programmes are put together from scenes of 3 to 15 s: stretches of validation clips of 3 s and more, with
keyframes up to 5 s apart; 15 % of the scenes have no face, 15 % the sound of another clip (0 % in the first
line of those that are in sync). Nothing is decoded: places are chosen, and looks judged, by the tool's own
code, on scores of the encoded clips. A clip's own zero is taken from its whole curve, and every scene is off
by 10 ms (standard deviation) more.
`CACHE` is that of `python -m training prepare`.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from talking import RATE, syllables, voice

from avsync_cli.check import judge_all
from avsync_cli.confidence import Calibration
from avsync_cli.container import MediaInfo
from avsync_cli.course import MIN_STEP_FRAMES
from avsync_cli.doubts import doubt_report, find_doubts
from avsync_cli.faces import FaceModels
from avsync_cli.findings import judge_looks, report_findings
from avsync_cli.grid import Picture
from avsync_cli.lips import lip_opening
from avsync_cli.model import Student, load_student
from avsync_cli.offsets import average_curve, find_peak
from avsync_cli.passages import MAX_PLACES, Chooser
from avsync_cli.rates import name_rate
from avsync_cli.report import Report
from avsync_cli.scoring import FacePiece, Look, fits_surely
from avsync_cli.seeking import Places
from avsync_cli.sound import Sound
from avsync_cli.spec import MAX_RANGE_FRAMES, RANGE_FRAMES, TOLERANCES
from avsync_cli.survey import least_looks, take_looks
from avsync_cli.timing import lead_ms
from training.data.cache import read_manifest
from training.data.clips import load_clip
from training.evaluation.calibration_examples import Encoded, encode_clip, score_encoded

NO_FACE, OTHER_VOICE, WOBBLE_FRAMES = 0.15, 0.15, 0.25
WIDE = 160  # frames that are scored, for ±100 around any lead of up to 60
MARGIN = WIDE + 50  # of other sound on both sides of a clip's own
SHORTEST = 71  # windows of a clip
SPEECH = voice(syllables(20.0))
LIMITS = TOLERANCES["itu-detect"]


@dataclass(frozen=True)
class Clip:
    """Scores [V, 2 WIDE + 1] with its own sound and with another's, its zero, the lips' opening [V + 4]."""

    own: np.ndarray
    other: np.ndarray
    lead_frames: float
    opening: np.ndarray


@dataclass(frozen=True)
class Scene:
    first_tick: int
    end_tick: int
    clip: Clip | None
    row: int = 0
    other: bool = False
    wobble: float = 0.0


@dataclass
class Programme:
    """Scenes, and the lead in frames at every tick; in place of a file's places and of the face models."""

    scenes: list[Scene]
    leads: np.ndarray
    calibration: Calibration
    decoded_pictures: int = 0
    position: int = field(default=0)

    def scene_at(self, tick: int) -> Scene:
        firsts = [scene.first_tick for scene in self.scenes]
        return self.scenes[max(0, int(np.searchsorted(firsts, tick, side="right")) - 1)]

    def approach(self, tick: int) -> int:
        self.position = tick // 125 * 125
        return self.position

    def pictures(self, first_tick: int, end_tick: int) -> Iterator[Picture]:
        for tick in range(first_tick, end_tick):
            yield Picture(tick, np.full((1, 1, 3), self.scene_at(tick).clip is not None, np.uint8), 1.0)

    def detect(self, rgb: np.ndarray, *, tiles: bool = False) -> list[bool]:  # noqa: ARG002
        return [True] if rgb.any() else []

    def hear(self, first_tick: int, end_tick: int) -> Sound:
        begin = first_tick * 7919 % (10 * RATE)
        return Sound(SPEECH[begin : begin + (end_tick - first_tick) * 640], first_tick * 640)

    def look(self, first_tick: int, end_tick: int) -> Look:
        pieces: list[FacePiece] = []
        tick = first_tick
        while tick < end_tick:
            scene = self.scene_at(tick)
            stop = min(end_tick, scene.end_tick)
            if scene.clip is not None and stop - tick > 5:
                pieces.append(self._piece(len(pieces), scene, tick, stop))
            tick = max(stop, tick + 1)
        return Look(first_tick, end_tick, tuple(pieces))

    def _piece(self, number: int, scene: Scene, first: int, stop: int) -> FacePiece:
        clip = scene.clip
        assert clip is not None
        row, ticks = scene.row + first - scene.first_tick, stop - first
        source = clip.other if scene.other else clip.own
        moves = self.leads[first : stop - 4] - clip.lead_frames + scene.wobble
        far = move_scores(source[row : row + ticks - 4], moves, MAX_RANGE_FRAMES)
        beyond = MAX_RANGE_FRAMES - RANGE_FRAMES
        scores = far[:, beyond:-beyond]
        kept = None if fits_surely(scores, self.calibration) else far.astype(np.float16)
        boxes = np.tile(np.array([0, 0, 100, 100], np.float32), (ticks, 1))
        levels_db = (20 * np.abs(np.sin(np.arange(ticks))) - 40).astype(np.float32)
        opening = clip.opening[row : row + ticks]
        return FacePiece(number, first, scores, boxes, opening, levels_db, kept)


def calibration_of(student: Student) -> Calibration:
    """The bundled student has one."""
    assert student.calibration is not None
    return student.calibration


def make_programme(
    clips: list[Clip],
    leads: np.ndarray,
    calibration: Calibration,
    rng: np.random.Generator,
    *,
    other_voice: float = OTHER_VOICE,
) -> Programme:
    scenes, tick = [], 0
    while tick < len(leads):
        clip = clips[int(rng.integers(len(clips)))]
        length = min(int(rng.uniform(3, 15) * 25), len(clip.own), len(leads) - tick)
        row, kind = int(rng.integers(0, len(clip.own) - length + 1)), rng.random()
        other = NO_FACE <= kind < NO_FACE + other_voice
        scenes.append(
            Scene(
                tick,
                tick + length,
                None if kind < NO_FACE else clip,
                row,
                other,
                float(rng.normal(0, WOBBLE_FRAMES)),
            )
        )
        tick += length
    return Programme(scenes, leads, calibration)


def check_programme(programme: Programme, student: Student) -> tuple[Report, list[Look]]:
    """As `check_file` does it in places, without a file."""
    end_tick = len(programme.leads)
    chooser = Chooser(
        cast(Places, programme),
        programme.hear,
        cast(FaceModels, programme),
        0,
        end_tick,
        most_places=max(MAX_PLACES, 2 * least_looks(end_tick)),
    )

    def look_between(first_tick: int, end_tick: int) -> Look | None:
        found = chooser.find_between(first_tick, end_tick)
        return None if found is None else programme.look(found[0].first_tick, found[0].end_tick)

    spread = (
        (programme.look(passage.first_tick, passage.end_tick), passage.has_face)
        for passage, _ in chooser.passages()
    )
    looks = take_looks(spread, look_between, 0, end_tick, calibration_of(student))
    return report_looks(looks, end_tick, student), looks


def report_looks(looks: list[Look], end_tick: int, student: Student) -> Report:
    """As `check_file` does it."""
    judged, findings = judge_all(looks, calibration_of(student))
    report = report_findings("p", MediaInfo(end_tick / 25, 25.0), LIMITS, findings, student)
    doubts = find_doubts(judged, findings, calibration_of(student))
    return doubt_report(name_rate(report, findings), doubts, LIMITS)


def names(report: Report, truth_ms: float) -> bool:
    """Whether a report says that the lead is this somewhere, to 40 ms."""
    leads = [step.to_ms for step in report.steps] + [step.from_ms for step in report.steps]
    return any(abs(each - truth_ms) <= 40 for each in leads)


def contradicts_itself(report: Report, looks: list[Look], student: Student) -> bool:
    """Whether a file is called in sync against what one of its looks says by itself, surely.

    A look that says what the report says of its part does not count, though it lies a little past a limit.
    """
    if report.status != "in_sync":
        return False
    said_ms = [report.audio_lead_ms or 0.0, *(step.from_ms for step in report.steps)]
    said_ms += [step.to_ms for step in report.steps]
    alone = [judge_looks([look], calibration_of(student)).verdict.answer for look in looks]
    return any(
        answer is not None
        and answer.reason is None
        and answer.confidence >= 0.95
        and answer.lead_frames is not None
        and not LIMITS.contains(lead_ms(answer.lead_frames))
        and min(abs(each - lead_ms(answer.lead_frames)) for each in said_ms) > lead_ms(MIN_STEP_FRAMES)
        for answer in alone
    )


def move_scores(scores: np.ndarray, moves: np.ndarray, range_frames: int) -> np.ndarray:
    """Scores [V, 2 WIDE + 1] with each row moved by its own part of frames, cubically: [V, 2 r + 1]."""
    whole = np.floor(moves).astype(int)
    f = 1 - (moves - whole)[:, None]
    weights = ((2 - f) * f - 1) * f, (3 * f - 5) * f * f + 2, ((4 - 3 * f) * f + 1) * f, (f - 1) * f * f
    columns = WIDE - range_frames - 1 - whole[:, None] + np.arange(2 * range_frames + 1)
    last = scores.shape[1] - 1
    taps = [
        0.5 * w * np.take_along_axis(scores, (columns + t).clip(0, last), 1)
        for w, t in zip(weights, range(-1, 3), strict=True)
    ]
    moved: np.ndarray = np.sum(taps, axis=0).astype(np.float32)
    return moved


def score_clips(student: Student, cache: Path) -> list[Clip]:
    """Validation clips, with the sound of others before, behind and instead of their own."""
    entries = [clip for clip in read_manifest(cache) if clip.split == "val" and clip.reason is None]
    loaded = [clip for clip in (load_clip(cache, entry) for entry in entries) if clip.windows >= SHORTEST]
    return pair_clips(
        student,
        [encode_clip(student, clip) for clip in loaded],
        [lip_opening(clip.lips.astype(np.float32)) for clip in loaded],
    )


def pair_clips(student: Student, encoded: list[Encoded], openings: list[np.ndarray]) -> list[Clip]:
    rng, scored = np.random.default_rng(0), []
    for clip, opening in zip(encoded, openings, strict=True):
        sounds = [other.audio for other in encoded if other is not clip]
        rng.shuffle(sounds)
        others = np.concatenate(sounds)
        around = np.concatenate([others[:MARGIN], clip.audio, others[MARGIN : 2 * MARGIN]])
        own, other = (
            score_encoded(
                student, replace(clip, audio=sound, audio_tick=clip.audio_tick - MARGIN), range_frames=WIDE
            )
            for sound in (around, others[2 * MARGIN : 2 * MARGIN + len(around)])
        )
        peak = find_peak(average_curve(score_encoded(student, clip)))
        if peak is not None and not peak.at_edge and np.isfinite(own).all() and np.isfinite(other).all():
            scored.append(Clip(own, other, peak.lead_frames, opening))
    return scored


def cut_programme(clips: list[Clip], student: Student, rng: np.random.Generator) -> Report:
    """60 s of six people without 2 s of their sound at 30 s, looked at as a whole."""
    people = [clip for clip in clips if len(clip.own) >= 250]
    scenes = []
    for number, place in enumerate(rng.choice(len(people), 6, replace=False)):
        row = int(rng.integers(0, len(people[place].own) - 249))
        wobble = float(rng.normal(0, WOBBLE_FRAMES))
        scenes.append(Scene(250 * number, 250 * (number + 1), people[place], row, wobble=wobble))
    leads = np.where(np.arange(1500) < 750, 0.0, 50.0)
    # An edit of the sound lies within a scene as often as not.
    shift = int(rng.integers(0, 250))
    scenes = [
        replace(scene, first_tick=max(0, scene.first_tick - shift), end_tick=scene.end_tick - shift)
        for scene in scenes
    ]
    programme = Programme(scenes, leads[: 1500 - shift], calibration_of(student))
    return report_looks([programme.look(0, 1500 - shift)], 1500 - shift, student)


def run_cuts(student: Student, clips: list[Clip], files: int) -> None:
    rng = np.random.default_rng(1)
    reports = [cut_programme(clips, student, rng) for _ in range(files)]
    found = sum(any(abs(step.at_s - 30) <= 2 for step in report.steps) for report in reports)
    kinds = Counter(f"{report.status} {report.course or report.reason}" for report in reports)
    print(
        f"2 s cut out of 60 s, --full: found at 30 s to 2 s in {found} of {files}; {dict(kinds)}", flush=True
    )


def run(student: Student, clips: list[Clip], files: int, ticks: int) -> None:
    rng = np.random.default_rng(0)
    for other_voice in (0.0, OTHER_VOICE):
        kinds: Counter[str] = Counter()
        used: list[int] = []
        for _ in range(files):
            programme = make_programme(
                clips, np.zeros(ticks), calibration_of(student), rng, other_voice=other_voice
            )
            report, looks = check_programme(programme, student)
            kinds[f"{report.status} {report.course or report.reason}"] += 1
            used.append(len(looks))
        print(
            f"in sync throughout, {other_voice:.0%} of the scenes with another voice, {files} files, "
            f"{np.mean(used):.0f} looks: {dict(kinds)}",
            flush=True,
        )
    for share in (0.1, 0.2, 0.35, 0.5):
        found, against = 0, 0
        used, kinds = [], Counter()
        for _ in range(files):
            truth_ms = float(rng.choice([-1, 1]) * rng.choice([120, 160, 220, 320]))
            first = int(rng.uniform(0, 1 - share) * ticks)
            leads = np.zeros(ticks)
            leads[first : first + int(share * ticks)] = truth_ms / 40
            report, looks = check_programme(
                make_programme(clips, leads, calibration_of(student), rng), student
            )
            found += names(report, truth_ms)
            against += contradicts_itself(report, looks, student)
            used.append(len(looks))
            kinds[f"{report.status} {report.course or report.reason}"] += not names(report, truth_ms)
        print(
            f"{share:.0%} of the file off by 120 to 320 ms: found in {found} of {files}, called in sync "
            f"against a look of its own {against}, {np.mean(used):.0f} looks; others: {dict(+kinds)}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=60)
    options = parser.parse_args()
    student = load_student(threads=1)
    clips = score_clips(student, options.cache)
    print(f"{len(clips)} clips, {sum(len(clip.own) for clip in clips) / 25:.0f} s")
    run_cuts(student, clips, options.files)
    run(student, clips, options.files, round(options.minutes * 1500))


if __name__ == "__main__":
    main()
