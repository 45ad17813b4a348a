"""Commands that make and look at the data that is trained on; each imports what it needs when it runs."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from avsync_cli.contract import DEFAULT_STUDENT
from avsync_cli.errors import ConfigError
from training.data.corpus import CORRECTIONS


def prepare(
    corpus: Annotated[
        Path, typer.Argument(help="Folder of videos, with a manifest.csv or without, or that of LRS2.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Cache folder.")],
    layout: Annotated[Literal["corpus", "lrs2"], typer.Option(help="How the folder is laid out.")] = "corpus",
    lists: Annotated[
        list[Path] | None,
        typer.Option("--list", help="File list of LRS2, such as train.txt; may be repeated."),
    ] = None,
    crop: Annotated[
        Literal["grey", "published"] | None,
        typer.Option(help="The tool's grey mouths (default), or RGB faces as VocaLiST takes them."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
    only: Annotated[
        list[str] | None, typer.Option(help="Only files whose path begins so; may be repeated.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many clips.")] = None,
    sound: Annotated[
        bool, typer.Option("--sound", help="Keep the samples too, for mels as the paper trains on.")
    ] = False,
    corrections: Annotated[Path, typer.Option(help="Table of an audit; a corpus' own.")] = CORRECTIONS,
    uncorrected: Annotated[
        bool, typer.Option("--uncorrected", help="As before any audit: what the manifest says.")
    ] = False,
    val_share: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Speakers to validate on, where no table says it (default 0.1)."),
    ] = None,
) -> None:
    """Decode clips once into a cache of crops, lip geometry and mels.

    A folder needs no manifest.csv: then all videos in it are taken, what is assumed of them is told, and
    their offsets are audited.
    """
    from training.data.cache import GREY
    from training.data.corpus import MANIFEST, read_corpus
    from training.data.lrs2 import read_lists
    from training.data.prepare import corpus_tasks, crop_kind, describe_prepared, fill_cache
    from training.evaluation.audit_footage import audit_footage, describe_assumed

    if (layout == "lrs2") != bool(lists):
        raise ConfigError("--list: needed with --layout lrs2, and only there")
    if lists and val_share is not None:
        raise ConfigError("--val-share: the lists of LRS2 say the split")
    has_table = bool(lists) or (corpus / MANIFEST).exists()
    tasks = (
        read_lists(corpus, lists)
        if lists
        else corpus_tasks(
            corpus,
            read_corpus(corpus, corrections=None if uncorrected else corrections, val_share=val_share),
        )
    )
    if not has_table:
        typer.echo(describe_assumed([task.entry for task in tasks]), err=True)
    tasks = [
        task
        for task in tasks
        if (not only or task.entry.file.startswith(tuple(only))) and split in (None, task.entry.split)
    ][:limit]
    kind = crop_kind(tasks, wanted=crop)
    unit = "clips" if lists or not has_table else "s of video"  # only a table tells how long they are
    entries = fill_cache(output, tasks, jobs=jobs, crop=kind, unit=unit, sound=sound)
    typer.echo(describe_prepared(entries))
    if not has_table and kind == GREY and corrections == CORRECTIONS and not uncorrected:
        typer.echo(audit_footage(output, entries))


def shard(
    cache: Annotated[Path, typer.Argument(help="Cache folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the shards.")],
    clips_per_shard: Annotated[int, typer.Option(min=1, help="Clips in one tar file.")] = 1000,
) -> None:
    """Pack a cache into tar files, for training on more than fits into memory."""
    from training.data.shards import write_shards

    shards = write_shards(cache, output, clips_per_shard=clips_per_shard)
    typer.echo(f"{sum(len(shard.windows) for shard in shards)} clips in {len(shards)} shards")


def audit(
    corpus: Annotated[Path, typer.Argument(help="Corpus folder with its manifest.csv.")],
    cache: Annotated[Path, typer.Option(help="Cache folder, prepared from it.")],
    students: Annotated[
        list[Path] | None,
        typer.Option("--student", help="Student's folder, or a checkpoint; may be repeated."),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Table of corrections.")] = CORRECTIONS,
    against: Annotated[Path, typer.Option(help="Table that it is compared with.")] = CORRECTIONS,
    max_frames: Annotated[int, typer.Option(min=10, help="Only the first frames of each clip.")] = 250,
) -> None:
    """Estimate every clip's offset, and write what `prepare` takes out of it from then on.

    A train clip is judged by students whose matching left its source out (`leave_out`), where there are any;
    a validation clip by all.
    What differs from the table that there was is told.
    """
    from training.data.cache import require_grey
    from training.data.clips import load_clips
    from training.data.corpus import known_corrections, read_corpus
    from training.evaluation.audit import Auditor, write_corrections
    from training.evaluation.audit import audit as run
    from training.evaluation.audit_agreement import compare_audit, describe_agreement
    from training.evaluation.candidates import open_judged
    from training.whole_file import require_writable

    require_grey(cache)
    before = known_corrections(against)
    require_writable(output)  # before minutes of work
    rates = {clip.file: clip.audio_rate for clip in read_corpus(corpus)}
    auditors = []
    for student in students or [DEFAULT_STUDENT]:
        judged = open_judged(student, network=None, threads=os.cpu_count() or 1)
        auditors.append(Auditor(judged.encoders, frozenset(judged.facts.get("left_out", ()))))
    clips = [clip for split in ("train", "val") for clip in load_clips(cache, split=split)]
    found = run(clips, auditors, rates=rates, max_frames=max_frames)
    write_corrections(output, found.corrections)
    typer.echo(
        f"{len(clips)} clips; {len(found.unseen)} judged by students that had not trained on them; all "
        f"moved by {-found.anchored_ms:+.1f} ms to keep zero where it was"
    )
    typer.echo(describe_agreement(compare_audit(found, before, rates=rates)))


def zero(
    corpus: Annotated[Path, typer.Argument(help="Corpus folder with its manifest.csv.")],
    cache: Annotated[Path, typer.Option(help="Cache folder of that corpus.")],
    student: Annotated[Path | None, typer.Option(help="Folder of another student.")] = None,
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Put zero_ms and its uncertainty into the student's model.json.")
    ] = False,
) -> None:
    """Where zero lies: when lips shut and open in speech, and when their sound falls and rises."""
    from avsync_cli.contract import DEFAULT_STUDENT
    from avsync_cli.model import load_student
    from training.data.cache import read_manifest, require_grey
    from training.data.corpus import read_corpus
    from training.evaluation.zero import describe_zero, join_anchors, measure_zero, write_zero

    require_grey(cache)
    listed = {clip.file: clip for clip in read_corpus(corpus) if not clip.machine_made}
    clips = [
        (listed[cached.file], cached)
        for cached in read_manifest(cache)
        if cached.reason is None and cached.file in listed and split in (None, cached.split)
    ]
    folder = student or DEFAULT_STUDENT
    loaded = load_student(folder, threads=os.cpu_count() or 1)
    measured = measure_zero(corpus, cache, clips, loaded)
    found = join_anchors(measured)
    typer.echo("\n".join(describe_zero(measured, found)))
    if write:
        written = write_zero(folder, found, before_ms=loaded.zero_ms)
        typer.echo(f"{folder}: zero_ms {loaded.zero_ms:g} -> {written:g}")


def scatter(
    cache: Annotated[Path, typer.Option(help="Cache folder.")],
    domain: Annotated[str, typer.Option(help="First folder of the clips' paths.")] = "broadcast",
    split: Annotated[str, typer.Option(help="Which clips.")] = "val",
    student: Annotated[Path | None, typer.Option(help="Student's folder, or a checkpoint.")] = None,
) -> None:
    """How far a domain's clips lie apart, and how much of it is their own."""
    from training.data.cache import require_grey
    from training.data.clips import load_clips
    from training.evaluation.candidates import open_judged
    from training.evaluation.scatter import measure_scatter
    from training.evaluation.score_clips import score_clip

    require_grey(cache)
    clips = [clip for clip in load_clips(cache, split=split) if clip.entry.domain == domain]
    encoders = open_judged(student, network=None, threads=os.cpu_count() or 1).encoders
    found = measure_scatter([score_clip(clip, encoders) for clip in clips])
    typer.echo(
        f"{found.clips} of {len(clips)} clips: median {found.median_frames:+.2f} frames, standard deviation "
        f"{found.deviation_frames:.2f}; halves correlate by {found.correlation:.2f}, so "
        f"{found.own_deviation_frames:.2f} frames are the clips' own"
    )
