"""`python -m training evaluate`: the paper's protocol and three measures of the whole tool."""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from avsync_cli.errors import ConfigError
from avsync_cli.model import load_student
from training.checkpoint import averaged_net, load_checkpoint
from training.clips import load_clips
from training.corpus import read_corpus
from training.measures import MEASURES, Outcome, measure
from training.progress import Progress
from training.protocol import LENGTHS
from training.validate import Encoders, GroupFigures, group_figures, score_clip, torch_encoders

PROTOCOL = "protocol"
NAMES = (PROTOCOL, *MEASURES)


def evaluate(
    student: Path | None,
    names: list[str],
    *,
    cache: Path | None,
    corpus: Path | None,
    split: str,
    jobs: int,
    only: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Run the named measures; returns plain JSON values. Raises ConfigError for what cannot be run.

    `student` is a student's folder (None: the bundled one) or, for the protocol alone, a checkpoint.
    """
    unknown = set(names) - set(NAMES)
    if unknown:
        raise ConfigError(f"measure {sorted(unknown)[0]!r}: not one of {', '.join(NAMES)}")
    through_files = [name for name in names if name != PROTOCOL]
    is_checkpoint = student is not None and student.is_file()
    if through_files and (corpus is None or is_checkpoint):
        raise ConfigError(f"{through_files[0]}: needs --corpus and an exported student")
    result: dict[str, Any] = {
        "command": " ".join(sys.argv[1:]),
        "student": _identity(student),
        "split": split,
    }
    if PROTOCOL in names:
        if cache is None:
            raise ConfigError("protocol: needs --cache")
        figures = protocol(encoders_of(student, threads=jobs), cache, split, only=only, threads=jobs)
        result[PROTOCOL] = [asdict(group) for group in figures]
    if through_files and corpus is not None:
        clips = [clip for clip in read_corpus(corpus) if clip.split == split and not clip.machine_made]
        clips = [clip for clip in clips if not only or clip.file.startswith(only)]
        outcomes = measure(through_files, clips, corpus, student, jobs=jobs)
        result["measures"] = count_outcomes(outcomes)
        result["outcomes"] = [asdict(outcome) for outcome in outcomes]
    return result


def protocol(
    encoders: Encoders, cache: Path, split: str, *, only: tuple[str, ...], threads: int
) -> list[GroupFigures]:
    """The paper's figures on whole cached clips.

    Their sound was corrected to their source's zero or, where a source's clips differ among themselves,
    to an estimate of the single clip (see `corpus`).
    """
    torch.set_num_threads(threads)
    clips = [clip for clip in load_clips(cache, split=split) if not clip.entry.machine_made]
    clips = [clip for clip in clips if not only or clip.entry.file.startswith(only)]
    scored = []
    with Progress("protocol", len(clips), unit="clips") as progress:
        for clip in clips:
            scored.append((clip, score_clip(clip, encoders)))
            progress.advance(1)
    return group_figures(scored)


def encoders_of(student: Path | None, *, threads: int) -> Encoders:
    """The functions of an exported student, or of a checkpoint's averaged weights."""
    if student is not None and student.is_file():
        return torch_encoders(averaged_net(load_checkpoint(student)))
    loaded = load_student(student, threads=threads)
    return Encoders(loaded.encode_video, loaded.encode_audio, loaded.score)


def count_outcomes(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Right, refused and wrong by measure and group, and by measure over all groups but broadcast."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for outcome in outcomes:
        groups = [outcome.group] if outcome.group == "broadcast" else [outcome.group, "all but broadcast"]
        for group in groups:
            counts.setdefault((outcome.measure, group), Counter())[outcome.result] += 1
    return [
        {"measure": name, "group": group, **_shares(count)} for (name, group), count in sorted(counts.items())
    ]


def markdown(result: dict[str, Any]) -> str:
    """The tables of a result."""
    parts = []
    if PROTOCOL in result:
        columns = [str(length) for length in LENGTHS] + ["clip"]
        rows = [
            [row["group"], str(row["clips"])]
            + [f"{row['percent'][key]:.1f}" if key in row["percent"] else "-" for key in columns]
            for row in result[PROTOCOL]
        ]
        head = ["source", "clips", *(f"K={length}" for length in LENGTHS), "whole clip"]
        parts.append(_table(head, rows))
    if "measures" in result:
        rows = [
            [row["measure"], row["group"]]
            + [f"{row[name]} ({row[f'{name}_percent']:.1f} %)" for name in ("right", "refused", "wrong")]
            + [_percent(row["right_of_answered_percent"])]
            for row in result["measures"]
        ]
        head = ["measure", "clips", "right", "refused", "wrong", "right of those answered"]
        parts.append(_table(head, rows))
    return "\n\n".join(parts)


def write_result(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    unfinished.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def _identity(student: Path | None) -> dict[str, Any]:
    if student is not None and student.is_file():
        loaded = load_checkpoint(student)
        return {"checkpoint": student.name, "step": loaded.step, **loaded.provenance}
    named = load_student(student)
    return {"name": named.name, "sha256": named.sha256}


def _shares(count: Counter[str]) -> dict[str, Any]:
    asked, answered = count.total(), count["right"] + count["wrong"]
    shares: dict[str, Any] = {"asked": asked}
    for name in ("right", "refused", "wrong"):
        shares[name] = count[name]
        shares[f"{name}_percent"] = 100 * count[name] / asked
    shares["right_of_answered_percent"] = 100 * count["right"] / answered if answered else None
    return shares


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
