"""Measures of the whole tool through real files.

*Truth* is the lead that a source's clips share, *audited* that of the single clip by the audit; *alarms* are
clips that would be said to be out of sync although their audited offset was taken out; *halves* of a clip
agree; *shifts* move the answer; *mismatched* sound of another clip is not in sync. Outcomes are right,
refused (the tool says that it cannot tell) or wrong.
"""

import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache as remember
from pathlib import Path
from typing import Literal

from avsync_cli.check import Engine, check_file, load_engine
from avsync_cli.errors import AvsyncError
from avsync_cli.spec import DEFAULT_TOLERANCE, SAME_OFFSET_FRAMES, TOLERANCES
from avsync_cli.timing import lead_ms
from training.data.corpus import Clip
from training.evaluation.shift import shift_audio
from training.progress import Progress

Result = Literal["right", "refused", "wrong"]

SHIFTS_WITHIN_FRAMES = 0.5  # a shift is known exactly
SHIFTS_FRAMES = (-12, -7, -3, 3, 7, 12)
MIN_HALF_S = 2.0
LONG_S = 4.0
MIN_OTHER_S = 2.0  # sources other than broadcast are judged on clips of at least this length


@dataclass(frozen=True)
class Outcome:
    """What came of one question: reported and expected audio lead in frames, and how it is judged.

    `reason` is why the tool refused, None where it answered.
    """

    measure: str
    file: str
    group: str
    result: Result
    expected_frames: float | None
    reported_frames: float | None
    reason: str | None


@dataclass(frozen=True)
class Answered:
    """The reported audio lead in frames, or None and why."""

    lead_frames: float | None
    reason: str | None


def counted_in(clip: Clip) -> str | None:
    """The group a clip is counted in; None for clips that are too short to be judged."""
    if clip.domain == "broadcast":
        return "broadcast"
    if clip.seconds >= LONG_S:
        return f"{clip.domain}, 4 s or more"
    return f"{clip.domain}, 2 to 4 s" if clip.seconds >= MIN_OTHER_S else None


def measure(
    names: list[str], clips: list[Clip], corpus: Path, student: Path | None, *, jobs: int
) -> list[Outcome]:
    """Run the named measures over the clips that they apply to, in `jobs` processes."""
    asked = [
        (name, clip)
        for name in names
        for clip in sorted(clips, key=lambda clip: -clip.seconds)
        if counted_in(clip) is not None and MEASURES[name].applies(clip)
    ]
    outcomes: list[Outcome] = []
    progress = Progress("measure", len(asked), unit="questions")
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool, progress:
        waiting = [
            pool.submit(_ask, name, clip, corpus, student, other_clip(clip, clips)) for name, clip in asked
        ]
        for future in as_completed(waiting):
            outcomes += future.result()
            progress.advance(1)
    return sorted(outcomes, key=lambda outcome: (outcome.measure, outcome.file, outcome.expected_frames or 0))


def judge(answered: Answered, expected_frames: float, within_frames: float) -> Result:
    if answered.lead_frames is None:
        return "refused"
    return "right" if abs(answered.lead_frames - expected_frames) <= within_frames else "wrong"


def other_clip(clip: Clip, clips: list[Clip]) -> Clip | None:
    """The clip of another source whose sound `clip` is given: the next that is as long, if there is one."""
    others = sorted((c for c in clips if c.source != clip.source), key=lambda other: other.file)
    long_enough = [other for other in others if other.seconds >= clip.seconds]
    after = [other for other in long_enough if other.file > clip.file]
    return next(iter(after + long_enough + others), None)


def audited(clip: Clip, path: Path, engine: Engine, _sound: Path | None = None) -> list[Outcome]:
    """The reported lead against the audit's, and whether the clip in sync would be said to be out of it."""
    answered = _answer(path, engine)
    told = _outcome("audited", clip, answered, clip.lead_frames, SAME_OFFSET_FRAMES)
    result: Result = "refused"
    if answered.lead_frames is not None:
        result = "right" if is_level(answered.lead_frames - clip.lead_frames) else "wrong"
    return [told, replace(told, measure="alarms", result=result)]


def mismatched(clip: Clip, path: Path, engine: Engine, sound: Path | None) -> list[Outcome]:
    """A clip with another's sound: wrong where it is said to be in sync."""
    if sound is None:
        return []
    answered = _answer(path, engine, audio=sound)
    result: Result = "refused"
    if answered.lead_frames is not None:
        result = "wrong" if is_level(answered.lead_frames) else "right"
    return [replace(_outcome("mismatched", clip, answered, 0.0, 0.0), expected_frames=None, result=result)]


def truth(clip: Clip, path: Path, engine: Engine, _sound: Path | None = None) -> list[Outcome]:
    """The reported lead against the one that the clip's source shares."""
    expected = clip.source_lead_frames
    if expected is None:
        return []
    answered = _answer(path, engine)
    return [_outcome("truth", clip, answered, expected, SAME_OFFSET_FRAMES)]


def halves(clip: Clip, path: Path, engine: Engine, _sound: Path | None = None) -> list[Outcome]:
    """Two halves of one clip, disjoint in their pictures, must agree; the sound beside them is shared."""
    middle_s = clip.seconds / 2
    first = _answer(path, engine, end_s=middle_s)
    second = _answer(path, engine, start_s=middle_s)
    if first.lead_frames is None:
        return [_outcome("halves", clip, first, 0.0, SAME_OFFSET_FRAMES)]
    return [_outcome("halves", clip, second, first.lead_frames, SAME_OFFSET_FRAMES)]


def shifts(clip: Clip, path: Path, engine: Engine, _sound: Path | None = None) -> list[Outcome]:
    """Sound moved inside the file by k frames must move the reported lead by -k."""
    base = _answer(path, engine)
    outcomes = []
    for frames in SHIFTS_FRAMES:
        expected = (base.lead_frames or 0.0) - frames
        if base.lead_frames is None:
            answered = base
        else:
            with tempfile.TemporaryDirectory(prefix="avsync-") as folder:
                answered = _shifted_answer(path, Path(folder), frames, engine)
        outcomes.append(_outcome("shifts", clip, answered, expected, SHIFTS_WITHIN_FRAMES))
    return outcomes


@dataclass(frozen=True)
class Measure:
    """What is asked of a clip, and of which clips."""

    ask: Callable[[Clip, Path, Engine, Path | None], list[Outcome]]  # the last: another clip, for its sound
    applies: Callable[[Clip], bool]


def is_level(lead_frames: float) -> bool:
    """Whether an answer of this lead says "in sync"."""
    return TOLERANCES[DEFAULT_TOLERANCE].contains(lead_ms(lead_frames))


def _has_truth(clip: Clip) -> bool:
    return clip.source_lead_frames is not None


def _has_halves(clip: Clip) -> bool:
    return clip.seconds >= 2 * MIN_HALF_S


def _any(_clip: Clip) -> bool:
    return True


MEASURES = {
    "truth": Measure(truth, _has_truth),
    "halves": Measure(halves, _has_halves),
    "shifts": Measure(shifts, _any),
    "audited": Measure(audited, _any),
    "mismatched": Measure(mismatched, _any),
}


def _ask(name: str, clip: Clip, corpus: Path, student: Path | None, other: Clip | None) -> list[Outcome]:
    sound = None if other is None else corpus / other.file
    return MEASURES[name].ask(clip, corpus / clip.file, _engine(student), sound)


def _answer(
    path: Path,
    engine: Engine,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    audio: Path | None = None,
) -> Answered:
    try:
        report = check_file(path, engine=engine, start_s=start_s, end_s=end_s, audio=audio)
    except AvsyncError as error:
        return Answered(None, str(error))
    if report.reason is not None:
        return Answered(None, report.reason)
    return Answered(report.audio_lead_frames, None)


def _shifted_answer(path: Path, folder: Path, frames: int, engine: Engine) -> Answered:
    try:
        return _answer(shift_audio(path, folder, frames=frames), engine)
    except AvsyncError as error:
        return Answered(None, str(error))


def _outcome(name: str, clip: Clip, answered: Answered, expected: float, within: float) -> Outcome:
    return Outcome(
        name,
        clip.file,
        counted_in(clip) or "short",
        judge(answered, expected, within),
        expected,
        answered.lead_frames,
        answered.reason,
    )


@remember
def _engine(student: Path | None) -> Engine:
    """One engine for each worker process."""
    return load_engine(student, threads=1, precision="fp32")  # the same on every machine
