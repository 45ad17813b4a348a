"""Which range of offsets to judge by: the one that was asked for, or ±`MAX_RANGE_FRAMES` where it must be.

V windows, C offsets of the usual range, F of the wide one. A look keeps the scores of the wide range only
where those of the usual one do not fit surely.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from avsync_cli.answers import Answer, answer_scores
from avsync_cli.confidence import Calibration
from avsync_cli.findings import add_timeline, judge_looks
from avsync_cli.scoring import FacePiece, Look
from avsync_cli.speakers import STILL_MOTION, measure_motion
from avsync_cli.spec import MAX_RANGE_FRAMES

Floats = NDArray[np.float32]


def choose_range(looks: list[Look], calibration: Calibration) -> list[Look]:
    """The looks as they are, or with scores of the wide range where the answer or a part of it lies there.

    Also where the wide range has a better offset than the usual one, but none to rely on: the usual one's
    is not to be relied on then either.
    """
    pieces = [piece for look in looks for piece in look.pieces if _may_be_far(piece)]
    if not pieces:
        return looks
    usual = pieces[0].scores.shape[1] // 2
    wide = widen_looks(looks)
    verdict = judge_looks(wide, calibration).verdict.answer
    if _is_beyond(verdict, usual - 1):
        return wide
    alone = [answer_scores(_far_scores(piece), calibration) for piece in pieces]
    together = answer_scores(np.concatenate([_far_scores(piece) for piece in pieces]), calibration)
    if not any(_is_beyond(each, usual - 1) and each.reason is None for each in (*alone, together)):
        return looks
    timeline = add_timeline(judge_looks(wide, calibration), calibration).timeline
    parts = () if timeline is None else timeline.parts
    return wide if any(_is_beyond(part.answer, usual - 1) for part in parts) else looks


def widen_looks(looks: list[Look]) -> list[Look]:
    """The same looks with scores [V, F], NaN beyond the usual range where nothing else was scored."""
    return [
        replace(
            look,
            pieces=tuple(replace(piece, scores=_far_scores(piece), far_scores=None) for piece in look.pieces),
        )
        for look in looks
    ]


def _far_scores(piece: FacePiece) -> Floats:
    if piece.far_scores is not None:
        return piece.far_scores.astype(np.float32)
    beyond = MAX_RANGE_FRAMES - piece.scores.shape[1] // 2
    return np.pad(piece.scores, ((0, 0), (beyond, beyond)), constant_values=np.nan)


def _may_be_far(piece: FacePiece) -> bool:
    return piece.far_scores is not None and measure_motion([piece]) >= STILL_MOTION


def _is_beyond(answer: Answer | None, frames: int) -> bool:
    return answer is not None and answer.lead_frames is not None and abs(answer.lead_frames) >= frames
