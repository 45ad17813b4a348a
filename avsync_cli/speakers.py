"""Who speaks: which of the faces in a video the verdict may rest on.

A face speaks where its own curve has a peak that can be relied on. A face whose mouth keeps still does
not, whatever its curve says: the voice is someone else's. A face whose mouth moves without a reliable
peak may speak too little to tell, listen and chew, or be dubbed; it is left out only where another face,
in view at the same time, is seen to speak. Of two that are in view together and name different offsets, the
surer one speaks: a voice has one offset, and the other's peak is chance. Unless the other names its offset
where the surer one is not heard: then both speak by turns, as in a call, and their offsets may differ.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from avsync_cli.answers import Answer, agree, answer_scores, choose_answer
from avsync_cli.confidence import Calibration
from avsync_cli.errors import ConfigError
from avsync_cli.offsets import average_curve, take_relative
from avsync_cli.scoring import FacePiece
from avsync_cli.spec import MIN_USABLE_FRAMES, WINDOW_FRAMES
from avsync_cli.speech import has_speech

Floats = NDArray[np.float32]

# The 387 clips of speech in the corpus that were looked at reach 0.035 and more, 99 % of them 0.048. A
# portrait with no more than grain stays below it in 22 of 30 cases: the mesh trembles on small, blurred
# and half-open mouths.
STILL_MOTION = 0.034
MOTION_FRAMES = 50
_TREMBLE_FRAMES = 3  # over which the opening is averaged: the mesh trembles from frame to frame
SHARED_VIEW = 0.5  # of a face's ticks, with a face that speaks: enough to take it for a listener
APART_CONFIDENCE = 0.9  # least, that a face speaks where another beside it does not
_HEARD_SHARE = 0.5  # of a face's mean fit with the sound: with less around a window it is not heard there
_HEARD_WINDOWS = 25  # around a window, whose fit is averaged
# Of two who differ, of all windows that are heard: fewer are a short look at two people in a long file.
_DIFFERING_SHARE, _DIFFERING_WINDOWS = 1 / 3, 750
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
    `differing` are faces that speak by turns in one view, each with an offset of its own.
    """

    answer: Answer | None
    heard: tuple[int, ...] = ()
    used: int | None = None
    differing: tuple[int, ...] = ()


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
    fits = [
        answer.reason in (None, "beyond_range") and motion >= STILL_MOTION
        for answer, motion in zip(answers, motions, strict=True)
    ]
    speakers = []
    for place, (answer, motion) in enumerate(zip(answers, motions, strict=True)):
        rivals = [
            other
            for other, fit in enumerate(fits)
            if fit
            and other != place
            and (not fits[place] or _contradicts(answers[other], answer))
            and _share_view(faces[place], faces[other]) >= SHARED_VIEW
        ]
        speaking: bool | None = None
        if answer.reason == "no_speech" or motion < STILL_MOTION:
            speaking = False
        elif rivals:
            apart = _answer_apart(faces[place], [faces[other] for other in rivals], calibration)
            speaking = apart is not None
            answer = apart or answer
        elif fits[place]:
            speaking = True
        speakers.append(Speaker(answer, motion, speaking))
    return speakers


def _contradicts(surer: Answer, answer: Answer) -> bool:
    """Whether a face in the same view is surer of another offset: at a time, all that speak share one."""
    return surer.confidence > answer.confidence and not agree(surer, answer)


def _share_view(face: list[FacePiece], other: list[FacePiece]) -> float:
    """Share of a face's ticks at which the other is in view, too."""
    ticks, others = (np.concatenate([piece.ticks for piece in each]) for each in (face, other))
    return float(np.isin(ticks, others).mean())


def _answer_apart(
    face: list[FacePiece], rivals: list[list[FacePiece]], calibration: Calibration
) -> Answer | None:
    """What a face says where no rival is heard; None where that cannot be relied on."""
    taken = np.concatenate([_heard_ticks(rival) for rival in rivals])
    scores = np.concatenate(
        [piece.scores[~np.isin(piece.ticks[: len(piece.scores)], taken)] for piece in face]
    )
    answer = answer_scores(scores, calibration)
    return answer if answer.reason is None and answer.confidence >= APART_CONFIDENCE else None


def _heard_ticks(face: list[FacePiece]) -> NDArray[np.int64]:
    """Ticks of the windows around which a face fits the sound, at its best offset, as it does on average."""
    curve = average_curve(np.concatenate([piece.scores for piece in face]))
    best = int(np.nanargmax(curve))
    heard = []
    for piece in face:
        fit = take_relative(piece.scores)[0][:, best]
        counts = np.convolve(np.ones(len(fit)), np.ones(_HEARD_WINDOWS), mode="same")
        around = np.convolve(fit, np.ones(_HEARD_WINDOWS), mode="same") / counts
        heard.append(piece.ticks[: len(fit)][around >= _HEARD_SHARE * curve[best]])
    return np.concatenate(heard)


def choose_verdict(
    faces: list[list[FacePiece]],
    speakers: list[Speaker],
    calibration: Calibration,
    *,
    speaker: str | int = AUTO,
) -> Verdict:
    """The answer for the file: of the faces that may speak, of all, or of face number `speaker`.

    Scores of several faces are added up, so that each counts as much as its curve stands out
    (`answers.choose_answer` says when a single face goes first). Where the sound may be speech and all
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
    differing = _find_differing(faces, speakers, heard)
    if differing:
        surest = max(differing, key=lambda place: speakers[place].answer.confidence)
        return Verdict(speakers[surest].answer, tuple(heard), surest, differing)
    scores = [piece.scores for place in heard for piece in faces[place]]
    together = answer_scores(np.concatenate(scores), calibration) if len(heard) > 1 else None
    used = choose_answer([speakers[place].answer for place in heard], together)
    if used is None:
        return Verdict(together, tuple(heard))
    return Verdict(speakers[heard[used]].answer, tuple(heard), heard[used])


def _find_differing(
    faces: list[list[FacePiece]], speakers: list[Speaker], heard: list[int]
) -> tuple[int, ...]:
    """Of the faces heard, those that speak beside one whose offset is another.

    None where that is a short look at two people among much else: they may not speak for the rest.
    """
    sure = [place for place in heard if speakers[place].speaking and speakers[place].answer.reason is None]
    differing = tuple(
        place
        for place in sure
        if any(
            not agree(speakers[place].answer, speakers[other].answer)
            and max(_share_view(faces[place], faces[other]), _share_view(faces[other], faces[place]))
            >= SHARED_VIEW
            for other in sure
            if other != place
        )
    )
    windows = [sum(len(piece.scores) for piece in faces[place]) for place in heard]
    theirs = sum(count for place, count in zip(heard, windows, strict=True) if place in differing)
    return differing if theirs >= min(_DIFFERING_SHARE * sum(windows), _DIFFERING_WINDOWS) else ()


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
    """What one face says; where it says nothing, silence behind it is the reason before any other.

    A mouth that goes with the sound proves speech, however it was judged by its level.
    """
    answer = answer_scores(np.concatenate([piece.scores for piece in face]), calibration)
    found = answer.reason in (None, "beyond_range") or answer.rival_frames is not None
    if not found and not has_speech(np.concatenate([piece.loudness_db for piece in face])):
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
