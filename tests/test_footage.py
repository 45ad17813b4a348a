"""A folder of videos without a table, and tables that leave out columns."""

import csv
import json
from pathlib import Path

import pytest
from synthetic_cache import make_cache
from typer.testing import CliRunner

from avsync_cli.errors import ConfigError
from training.__main__ import app
from training.config import read_config
from training.data.cache import read_manifest
from training.data.clips import Sampler, load_clips
from training.data.corpus import COLUMNS, read_corpus
from training.data.footage import list_videos, split_speakers
from training.data.prepare import corpus_tasks

SPEAKERS = [f"s{number}" for number in range(200)]


def touch(folder, *files):
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def test_all_videos_of_all_folders_are_taken(tmp_path):
    touch(tmp_path, "b/2.MP4", "b/1.mkv", "a.mov", "notes.txt", ".hidden/x.mp4", "b/.y.mp4", "b/c/d/3.webm")
    (tmp_path / "b" / "folder.mp4").mkdir()
    assert list_videos(tmp_path) == ["a.mov", "b/1.mkv", "b/2.MP4", "b/c/d/3.webm"]
    clips = {clip.file: clip for clip in read_corpus(tmp_path)}
    assert {clip.domain for clip in clips.values()} == {"b", "footage"}
    assert clips["b/c/d/3.webm"].source == "b/c/d"
    assert not any(clip.machine_made or clip.lead_frames or clip.left_out for clip in clips.values())
    assert clips["b/1.mkv"].split == clips["b/2.MP4"].split
    empty = tmp_path / "b" / "folder.mp4"
    for folder, words in ((empty, "neither a manifest.csv nor a video"), (tmp_path / "no", "no such folder")):
        with pytest.raises(ConfigError, match=words):
            read_corpus(folder)


def test_a_speaker_keeps_its_split_when_others_come():
    few, many = split_speakers(SPEAKERS[:100]), split_speakers(SPEAKERS)
    assert few.items() <= many.items()
    assert 10 <= list(many.values()).count("val") <= 30  # of 200, a tenth
    assert list(split_speakers(SPEAKERS, 0.5).values()).count("val") in range(80, 120)


@pytest.mark.parametrize("count", range(2, 12))
def test_both_splits_have_a_speaker_where_there_are_two(count):
    assert set(split_speakers(SPEAKERS[:count]).values()) == {"train", "val"}
    assert set(split_speakers(SPEAKERS[:count], 0.95).values()) == {"train", "val"}
    assert set(split_speakers(SPEAKERS[:count], 0.0).values()) == {"train"}


def test_one_speaker_is_trained_on():
    assert split_speakers(["a"]) == {"a": "train"}


def write_table(folder, text):
    (folder / "manifest.csv").write_text(text)
    return folder


def test_a_table_needs_the_files_alone(tmp_path):
    write_table(tmp_path, "file\nann/1.mp4\nann/2.mp4\nbob/1.mp4\n")
    clips = read_corpus(tmp_path)
    assert [clip.file for clip in clips] == ["ann/1.mp4", "ann/2.mp4", "bob/1.mp4"]
    assert clips[0].split == clips[1].split != clips[2].split
    (tmp_path / "manifest.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "manifest.csv").read_bytes())
    assert read_corpus(tmp_path) == clips  # as spreadsheets write it
    first = corpus_tasks(tmp_path, clips)[0]
    assert (first.size, first.entry.source) == (1.0, "ann")


def test_what_a_table_says_counts(tmp_path):
    write_table(tmp_path, "file,split,speaker\na/1.mp4,test,\nb/1.mp4,,ann\nc/1.mp4,,ann\nd/1.mp4,,bob\n")
    splits = [clip.split for clip in read_corpus(tmp_path)]
    assert splits[0] == "test"
    assert splits[1] == splits[2]
    write_table(tmp_path, "file,split\na/1.mp4,test\n")
    with pytest.raises(ConfigError, match="says the split of every clip; leave out --val-share"):
        read_corpus(tmp_path, val_share=0.2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name\na.mp4\n", "manifest.csv, line 2: 'file' is missing"),
        ("file,split\na.mp4,train\n,val\n", "manifest.csv, line 3: 'file' is missing"),
        ("file\n", "manifest.csv: lists no clip"),
        ("file\na.mp4\na.mp4\n", "line 3: a.mp4 is listed twice"),
        ("file\n../a.mp4\n", "line 2: file '../a.mp4' does not lie in"),
        ("file\n/etc/a.mp4\n", "does not lie in"),
        ("file,split\na.mp4,dev\n", "a.mp4: split 'dev' is not what it must be (train, val or test"),
        ("file,seconds\na.mp4,long\n", "a.mp4: seconds 'long' is not"),
        ("file,seconds\na.mp4,-1\n", "a.mp4: seconds '-1' is not"),
        ("file,audio_rate\na.mp4,44.1\n", "audio_rate '44.1' is not what it must be (sample rate in Hz"),
        ("file,machine_made\na.mp4,true\n", "machine_made 'true' is not what it must be (yes or no"),
        ("file,source_lead_frames\na.mp4,nan\n", "source_lead_frames 'nan' is not"),
        ("file,clip_lead_frames,clip_confidence\na.mp4,1,high\n", "clip_confidence 'high' is not"),
    ],
)
def test_a_bad_cell_is_one_clear_line(tmp_path, text, words):
    write_table(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_corpus(tmp_path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_column_is_told():
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    assert all(f"| `{name}` |" in page for name in COLUMNS)


def test_all_clips_are_drawn_where_no_domain_has_a_share(tmp_path):
    clips = load_clips(make_cache(tmp_path / "cache", clips=9, domains=("ann", "bob")), split="train")
    path = Path(__file__).parents[1] / "training" / "configs" / "own.toml"
    config = read_config(path, ["data.clips=16", "data.windows=8"])
    assert (config.data.start, config.loss.others) == ({}, 2)
    sampler = Sampler(clips, config.data, seed=0, steps=4)
    assert sampler.batch(0).crops.shape[0] == 16
    lengths = [sum(clip.entry.domain == name for clip in clips) for name in ("ann", "bob")]
    assert sampler.shares(0) == pytest.approx([length / len(clips) for length in lengths])


@pytest.mark.slow
def test_a_folder_without_a_table_is_prepared_and_audited(tmp_path, heads):
    folder = tmp_path / "own"
    for place, lead in (("ann/1", 0), ("ann/2", 160), ("bob/1", 0)):
        path = folder / f"{place}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(heads[lead].read_bytes())
    cache = tmp_path / "cache"
    told = CliRunner().invoke(app, ["prepare", str(folder), "-o", str(cache), "--jobs", "1"])
    assert told.exit_code == 0, told.output
    assert "no manifest.csv: 3 videos" in told.output
    assert "1 to train, 1 to val" in told.output
    assert "audit by the bundled student" in told.output
    with (cache / "corrections.csv").open() as file:
        assert [row["file"] for row in csv.DictReader(file)] == ["ann/1.mp4", "ann/2.mp4", "bob/1.mp4"]
    assert {entry.split for entry in read_manifest(cache)} == {"train", "val"}
    words = ["prepare", str(folder), "-o", str(cache), "--corrections", str(cache / "corrections.csv")]
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 0, again.output
    assert json.loads((cache / "manifest.json").read_text())["crop"] == "grey"
