"""Who speaks: which of the faces in a video the verdict may rest on.

A face speaks where its own curve has a peak that can be relied on. A face whose mouth keeps still does
not, whatever its curve says: the voice is someone else's. A face whose mouth moves without a reliable
peak may speak too little to tell, listen and chew, or be dubbed; it is left out only where another face,
in view at the same time, is seen to speak. Of two that are in view together and name different offsets, the
surer one speaks: a voice has one offset, and the other's peak is chance.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from avsync_cli.assess import Answer, agree, answer_scores, choose_answer, has_speech
from avsync_cli.errors import ConfigError
from avsync_cli.looks import FacePiece
from avsync_cli.model import Calibration
from avsync_cli.spec import MIN_USABLE_FRAMES, WINDOW_FRAMES

Floats = NDArray[np.float32]

# The 387 clips of speech in the corpus that were looked at reach 0.035 and more, 99 % of them 0.048. A
# portrait with no more than grain stays below it in 22 of 30 cases: the mesh trembles on small, blurred
# and half-open mouths.
STILL_MOTION = 0.034
MOTION_FRAMES = 50
_TREMBLE_FRAMES = 3  # over which the opening is averaged: the mesh trembles from frame to frame
SHARED_VIEW = 0.5  # of a face's ticks, with a face that speaks: enough to take it for a listener
AUTO, ALL = "auto", "all"


@dataclass(frozen=True)
class Speaker:
    """What is known of one face: `speaking` is None where it cannot be told.

    `motion` is that of the mouth (`measure_motion`).
    """

    answer: Answer
    motion: float
    speaking: bool | None


@dataclass(frozen=True)
class Verdict:
    """The answer for the file and the places in the list of faces that it rests on.

    `used` is the face that was answered from alone; None where all of `heard` were taken together.
    """

    answer: Answer | None
    heard: tuple[int, ...] = ()
    used: int | None = None


def parse_speaker(value: str) -> str | int:
    """ "auto", "all", or the number of a face from 1 on. Raises ConfigError."""
    if value in (AUTO, ALL):
        return value
    if not value.isdecimal() or int(value) < 1:
        raise ConfigError(f"speaker {value!r}: neither {AUTO}, {ALL} nor the number of a face from 1 on")
    return int(value)


def judge_speakers(faces: list[list[FacePiece]], calibration: Calibration) -> list[Speaker]:
    """Answer every face by itself, and tell which of them speak."""
    answers = [_answer_face(face, calibration) for face in faces]
    motions = [measure_motion(face) for face in faces]
    ticks = [np.concatenate([piece.ticks for piece in face]) for face in faces]
    fits = [
        answer.reason in (None, "beyond_range") and motion >= STILL_MOTION
        for answer, motion in zip(answers, motions, strict=True)
    ]
    speakers = []
    for place, (answer, motion) in enumerate(zip(answers, motions, strict=True)):
        listens = any(
            fit
            and np.isin(ticks[place], ticks[other]).mean() >= SHARED_VIEW
            and (not fits[place] or _contradicts(answers[other], answer))
            for other, fit in enumerate(fits)
            if other != place
        )
        speaking: bool | None = None
        if answer.reason == "no_speech" or motion < STILL_MOTION or listens:
            speaking = False
        elif fits[place]:
            speaking = True
        speakers.append(Speaker(answer, motion, speaking))
    return speakers


def _contradicts(surer: Answer, answer: Answer) -> bool:
    """Whether a face in the same view is surer of another offset: all that speak in a view share one."""
    return surer.confidence > answer.confidence and not agree(surer, answer)


def choose_verdict(
    faces: list[list[FacePiece]],
    speakers: list[Speaker],
    calibration: Calibration,
    *,
    speaker: str | int = AUTO,
) -> Verdict:
    """The answer for the file: of the faces that may speak, of all, or of face number `speaker`.

    Scores of several faces are added up, so that each counts as much as its curve stands out
    (`assess.choose_answer` says when a single face goes first). Where the sound may be speech and all
    faces keep their mouths still, the reason is "no_visible_speaker".
    """
    if isinstance(speaker, int):
        if speaker > len(faces):
            return Verdict(None)
        return Verdict(speakers[speaker - 1].answer, (speaker - 1,), speaker - 1)
    heard = [
        place
        for place, each in enumerate(speakers)
        if each.answer.reason != "no_speech" and (speaker == ALL or each.speaking is not False)
    ]
    if not faces:
        return Verdict(None)
    if not heard:
        return _refuse(speakers)
    scores = [piece.scores for place in heard for piece in faces[place]]
    together = answer_scores(np.concatenate(scores), calibration) if len(heard) > 1 else None
    used = choose_answer([speakers[place].answer for place in heard], together)
    if used is None:
        return Verdict(together, tuple(heard))
    return Verdict(speakers[heard[used]].answer, tuple(heard), heard[used])


def measure_motion(face: list[FacePiece]) -> float:
    """The largest standard deviation of the lips' opening in any 2 s of a face's pieces.

    In the unit of `lips.lip_opening`, an eighth of the distance between the eyes.
    """
    largest = 0.0
    for piece in face:
        kernel = np.full(min(_TREMBLE_FRAMES, len(piece.opening)), 1.0)
        opening = np.convolve(piece.opening, kernel / len(kernel), mode="valid")
        for first in range(0, max(1, len(opening) - MOTION_FRAMES // 2), MOTION_FRAMES // 2):
            largest = max(largest, float(opening[first : first + MOTION_FRAMES].std()))
    return largest


def _answer_face(face: list[FacePiece], calibration: Calibration) -> Answer:
    """What one face says; silence behind it is the reason before any other."""
    answer = answer_scores(np.concatenate([piece.scores for piece in face]), calibration)
    if not has_speech(np.concatenate([piece.loudness_db for piece in face])):
        return replace(answer, reason="no_speech")
    return answer


def _refuse(speakers: list[Speaker]) -> Verdict:
    """The answer where nobody may speak: that of the surest face, with the reason why it cannot be used."""
    with_voice = [place for place, each in enumerate(speakers) if each.answer.reason != "no_speech"]
    places = with_voice or range(len(speakers))
    best = max(places, key=lambda place: speakers[place].answer.confidence)
    answer = speakers[best].answer
    frames = sum(speakers[place].answer.windows + WINDOW_FRAMES - 1 for place in with_voice)
    if with_voice:
        reason = "no_visible_speaker" if frames >= MIN_USABLE_FRAMES else "too_short"
        answer = replace(answer, reason=reason)  # type: ignore[arg-type]
    return Verdict(answer, (), best)
