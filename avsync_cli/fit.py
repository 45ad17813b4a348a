"""How much of what speaks fits the verdict: with its own sound a curve stands out there, with another's not.

V windows, C offsets. A block is a stretch of a face's windows, long enough to tell whether the sound at the
verdict's offset belongs to it.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from avsync_cli.course import Course
from avsync_cli.findings import Findings
from avsync_cli.offsets import leads_of, take_relative
from avsync_cli.scoring import FacePiece, Look
from avsync_cli.speakers import STILL_MOTION, measure_motion
from avsync_cli.spec import SAME_OFFSET_FRAMES, VIDEO_FPS
from avsync_cli.speech import has_speech
from avsync_cli.timeline import straighten

Floats = NDArray[np.float32]
Ticks = NDArray[np.int64]

BLOCK_WINDOWS = 116  # 4.8 s
MIN_BLOCK_WINDOWS = 30  # fewer tell nothing by themselves
# How high the curve stands at the right offset, in standard deviations of the scores: what is lower fits
# nothing. Of validation clips' blocks of 116 windows 2.5 % are lower against their own sound, and 93 %
# against another's; of 56 windows, where 40 % of that is asked for, 2 and 52 %.
LEAST_HEIGHT = 0.34
_FULL_HEIGHT_WINDOWS = 116
_MUCH_QUIETER_DB = 20.0  # than the loud parts: a pause, whatever noise is in it
_LISTENER_SHARE = 0.5  # of the motion of most mouths: what moves less smiles or nods while another speaks
NOTHING_FITS = ("low_confidence", "no_match", "beyond_range")


@dataclass(frozen=True)
class Fit:
    """Seconds that speak and move, how many of these fit no offset, and the most of them without a break."""

    heard_s: float
    unfitted_s: float
    longest_s: float = 0.0


@dataclass(frozen=True)
class Block:
    """Windows at `ticks` [V] whose scores [V, C] were moved so that what fits the course has a lead of 0."""

    ticks: Ticks
    scores: Floats


@dataclass(frozen=True)
class Blocks:
    """Those of all faces that the verdict rests on, and the `spread` of the file's scores."""

    found: tuple[Block, ...]
    spread: float

    def fit(self, *blocks: Block) -> bool:
        """Whether the curve of these together stands out within a frame of a lead of 0."""
        scores = np.concatenate([block.scores for block in blocks])
        share = (len(scores) - 16) / (_FULL_HEIGHT_WINDOWS - 16)
        return self.height(scores) >= LEAST_HEIGHT * min(1.0, max(0.0, share))

    def height(self, scores: Floats) -> float:
        relative, _ = take_relative(scores)
        near = np.abs(leads_of(scores.shape[1])) <= SAME_OFFSET_FRAMES
        return float(relative.mean(axis=0)[near].max()) / self.spread

    def best_of(self, look: Look) -> Block | None:
        """The block of a look whose curve stands highest: of several faces in view one is enough."""
        own = [block for block in self.found if look.first_tick <= block.ticks[0] < look.end_tick]
        return max(own, key=lambda block: self.height(block.scores), default=None)


def find_blocks(findings: Findings) -> Blocks:
    """All that can be asked; nothing where there is no offset to ask for."""
    verdict, timeline = findings.verdict, findings.timeline
    pieces = [(place, piece) for place in verdict.heard for piece in findings.faces[place]]
    if verdict.answer is None or timeline is None or timeline.course is None or not pieces:
        return Blocks((), 1.0)
    loud_db = _loudness_of([piece for _, piece in pieces])
    found: list[tuple[Block, float]] = []  # with the motion of the mouth
    for place, piece in pieces:
        ticks = piece.ticks[: len(piece.scores)]
        own = findings.speakers[place].answer.lead_frames if place in verdict.differing else None
        followed = timeline.course if own is None else Course("constant", own)
        straight = straighten(ticks, piece.scores, followed, reference_frames=0.0)
        count = max(1, round(len(straight) / BLOCK_WINDOWS))
        for rows in np.array_split(np.arange(len(straight)), count):
            if len(rows) >= MIN_BLOCK_WINDOWS and _may_be_asked(piece, rows, straight[rows], loud_db):
                found.append((Block(ticks[rows], straight[rows]), _motion_of(piece, rows)))
    least_motion = max(
        STILL_MOTION, _LISTENER_SHARE * float(np.median([motion for _, motion in found] or [0]))
    )
    talking = tuple(block for block, motion in found if motion >= least_motion)
    return Blocks(talking, _measure_spread([piece for _, piece in pieces]))


def measure_fit(findings: Findings) -> Fit:
    """How much of what may speak fits the verdict's course; nothing does where there is no verdict.

    Of several faces in view one is enough: they speak by turns. Where they differ, each has its own offset.
    """
    blocks = find_blocks(findings)
    if not blocks.found or findings.verdict.answer is None:
        return Fit(0.0, 0.0)
    told = np.unique(np.concatenate([block.ticks for block in blocks.found]))
    nothing = findings.verdict.answer.reason in NOTHING_FITS
    fitted = [block.ticks for block in blocks.found if not nothing and blocks.fit(block)]
    unfitted = ~np.isin(told, np.concatenate([np.zeros(0, np.int64), *fitted]))
    return Fit(
        len(told) / VIDEO_FPS, int(unfitted.sum()) / VIDEO_FPS, _longest_run(told[unfitted]) / VIDEO_FPS
    )


def fit_alone(look: Look, blocks: Blocks) -> bool | None:
    """Whether a look fits the course; None where nobody speaks in it for long enough to tell."""
    best = blocks.best_of(look)
    return None if best is None else blocks.fit(best)


def fit_together(looks: list[Look], blocks: Blocks) -> bool | None:
    """Whether looks fit the course as one; None where fewer than two of them can be asked.

    Two passages of 2.4 s tell far more together than one: see `LEAST_HEIGHT`.
    """
    best = [block for look in looks if (block := blocks.best_of(look)) is not None]
    return blocks.fit(*best) if len(best) > 1 else None


def _may_be_asked(piece: FacePiece, rows: Ticks, scores: Floats, loud_db: float) -> bool:
    """Whether there is a voice with these windows of a piece that is not much quieter than `loud_db`, and
    sound to fit with most of their scores [V, C]."""
    levels_db = piece.loudness_db[int(rows[0]) : int(rows[-1]) + 1]
    if not has_speech(levels_db) or np.nanpercentile(levels_db, 95) < loud_db - _MUCH_QUIETER_DB:
        return False
    return bool(np.isfinite(scores[:, scores.shape[1] // 2]).mean() >= 0.5)


def _motion_of(piece: FacePiece, rows: Ticks) -> float:
    return measure_motion([replace(piece, opening=piece.opening[int(rows[0]) : int(rows[-1]) + 1])])


def _loudness_of(pieces: list[FacePiece]) -> float:
    """The level in dB of the loud parts of a file."""
    levels_db = np.concatenate([piece.loudness_db for piece in pieces])
    levels_db = levels_db[np.isfinite(levels_db)]
    return float(np.percentile(levels_db, 95)) if len(levels_db) else -math.inf


def _measure_spread(pieces: list[FacePiece]) -> float:
    """Standard deviation of the scores about their windows' means."""
    squares, count = 0.0, 0
    for piece in pieces:
        relative, present = take_relative(piece.scores)
        squares, count = squares + float((relative**2).sum()), count + int(present.sum())
    return float(np.sqrt(squares / max(1, count))) or 1.0


def _longest_run(ticks: Ticks) -> int:
    """The greatest number of ticks that follow one another within a second."""
    breaks = np.flatnonzero(np.diff(ticks) > VIDEO_FPS) + 1
    return max((len(run) for run in np.split(ticks, breaks)), default=0)
