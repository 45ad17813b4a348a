"""`python -m training evaluate`: the paper's protocol and measures of the whole tool."""

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avsync_cli.errors import ConfigError
from training.data.cache import require_grey, require_rgb
from training.data.clips import LoadedClip, load_clips
from training.data.corpus import Clip, read_corpus
from training.data.provenance import provenance_of
from training.evaluation.candidates import open_judged
from training.evaluation.measures import MEASURES, Outcome, measure
from training.evaluation.protocol import LENGTHS, competing_scores, mean_accuracies
from training.evaluation.published_protocol import published_figures, published_scores
from training.evaluation.score_clips import (
    Encoders,
    Floats,
    GroupFigures,
    gather_groups,
    group_figures,
    score_clip,
)
from training.progress import Progress
from training.whole_file import write_json

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
    network: str | None = None,
    max_frames: int | None = None,
    clips: int | None = None,
) -> dict[str, Any]:
    """Run the named measures; returns plain JSON values. Raises ConfigError for what cannot be run.

    `student` is a student's folder (None: the bundled one) or, for the protocol alone, a checkpoint, or a
    file of the authors' weights of the preset `network`. The protocol can be limited to the first
    `max_frames` frames of each clip and to `clips` of them, as cross-modal networks score slowly.
    """
    through_files = [name for name in names if name != PROTOCOL]
    _refuse_unknown(names)
    if through_files and (corpus is None or (student is not None and student.is_file())):
        raise ConfigError(f"{through_files[0]}: needs --corpus and an exported student")
    limits = {"max_frames": max_frames, "clips": clips}
    if PROTOCOL not in names and (network is not None or any(limits.values())):
        raise ConfigError("--network, --max-frames and --clips: the protocol alone has a use for them")
    judged = open_judged(student, network=network, threads=jobs)
    result: dict[str, Any] = {
        "command": " ".join(sys.argv[1:]),
        "student": judged.identity,
        **judged.facts,
        "split": split,
    }
    if PROTOCOL in names:
        if cache is None:
            raise ConfigError("protocol: needs --cache")
        if not judged.takes_rgb:
            require_grey(cache)
        if not judged.takes_grey:
            require_rgb(cache)
        chosen = choose_clips(cache, split, only=only, count=clips)
        torch.set_num_threads(jobs)
        result |= {"origin": provenance_of(cache), "limits": limits}
        result[PROTOCOL] = protocol_rows(judged.encoders, chosen, max_frames=max_frames)
    if through_files and corpus is not None:
        files = choose_files(corpus, split, only=only)
        outcomes = measure(through_files, files, corpus, student, jobs=jobs)
        result["measures"] = count_outcomes(outcomes)
        result["outcomes"] = [asdict(outcome) for outcome in outcomes]
    return result


def choose_files(corpus: Path, split: str, *, only: tuple[str, ...]) -> list[Clip]:
    """The clips of a corpus that the tool is run on."""
    clips = [clip for clip in read_corpus(corpus) if clip.split == split and not clip.machine_made]
    return [clip for clip in clips if not only or clip.file.startswith(only)]


def choose_clips(cache: Path, split: str, *, only: tuple[str, ...], count: int | None) -> list[LoadedClip]:
    """The cached clips that the protocol is run on: all, or `count` spread evenly over their names."""
    clips = [clip for clip in load_clips(cache, split=split) if not clip.entry.machine_made]
    clips = [clip for clip in clips if not only or clip.entry.file.startswith(only)]
    if count is None or count >= len(clips):
        return clips
    return [clips[int(place)] for place in np.linspace(0, len(clips) - 1, count).round()]


def protocol(
    encoders: Encoders, clips: list[LoadedClip], *, max_frames: int | None = None
) -> list[GroupFigures]:
    """The paper's figures on cached clips.

    Their sound was corrected to their source's zero or, where a source's clips differ among themselves,
    to an estimate of the single clip (see `corpus`).
    """
    return group_figures(score_all(encoders, clips, max_frames=max_frames), with_all=True)


def protocol_rows(
    encoders: Encoders, clips: list[LoadedClip], *, max_frames: int | None = None
) -> list[dict[str, Any]]:
    """The same as plain values; `published` are the figures by the published code's rule, `competing` those
    where windows compete for the sound too (`protocol.competing_scores`)."""
    scored = score_all(encoders, clips, max_frames=max_frames)
    by_rule = [(clip, published_scores(clip, scores, encoders)) for clip, scores in scored]
    published = gather_groups(by_rule, with_all=True)
    competing = gather_groups(((clip, competing_scores(scores)) for clip, scores in scored), with_all=True)
    return [
        asdict(group)
        | {
            "published": published_figures(published[group.group]),
            "competing": mean_accuracies(competing[group.group]),
        }
        for group in group_figures(scored, with_all=True)
    ]


def score_all(
    encoders: Encoders, clips: list[LoadedClip], *, max_frames: int | None = None
) -> list[tuple[LoadedClip, Floats]]:
    """Every clip with its scores [V, 31]."""
    scored = []
    with Progress("protocol", len(clips), unit="clips") as progress:
        for clip in clips:
            scored.append((clip, score_clip(clip, encoders, max_frames=max_frames)))
            progress.advance(1)
    return scored


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
        parts += [_protocol_table(result[PROTOCOL], rule) for rule in ("percent", "competing")]
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


def _protocol_table(groups: list[dict[str, Any]], rule: str) -> str:
    columns = [str(length) for length in LENGTHS] + ["clip"]
    rows = [
        [row["group"], str(row["clips"])]
        + [f"{row[rule][key]:.1f}" if key in row[rule] else "-" for key in columns]
        for row in groups
    ]
    named = "source" if rule == "percent" else rule
    return _table([named, "clips", *(f"K={length}" for length in LENGTHS), "whole clip"], rows)


def write_result(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result)


def _refuse_unknown(names: list[str]) -> None:
    unknown = set(names) - set(NAMES)
    if unknown:
        raise ConfigError(f"measure {sorted(unknown)[0]!r}: not one of {', '.join(NAMES)}")


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
