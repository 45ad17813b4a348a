"""Preparing a corpus: what is written, what is left out, and what a correction redoes."""

import csv
import json

import numpy as np
import pytest
from synthetic_cache import make_cache
from typer.testing import CliRunner

from avsync_cli.errors import ConfigError
from avsync_cli.mel import mel_spectrogram
from training.__main__ import app
from training.data.cache import SOUND_FULL_SCALE, audio_path, open_cache, read_manifest, video_path
from training.data.clips import Section, audio_windows, load_clips, make_batch
from training.data.corpus import CORRECTIONS, read_corpus
from training.data.pairs import chunk_mel
from training.data.prepare import prepare, prepare_clip

COLUMNS = (
    *("file", "split", "source", "machine_made", "audio_rate"),
    *("seconds", "source_lead_frames", "clip_lead_frames", "clip_confidence"),
)
ROWS = [
    ("wild/a.mp4", "train", "s", "no", "48000", "4.0", "", "1.5", "0.6"),
    ("wild/b.mp4", "val", "s", "no", "48000", "4.0", "0.25", "1.5", "0.6"),
    ("wild/none.mp4", "train", "s", "yes", "48000", "4.0", "", "3.0", "0.1"),
]


@pytest.fixture
def corpus(tmp_path, heads):
    folder = tmp_path / "corpus"
    (folder / "wild").mkdir(parents=True)
    (folder / "wild" / "a.mp4").write_bytes(heads[0].read_bytes())
    (folder / "wild" / "b.mp4").write_bytes(heads[160].read_bytes())
    (folder / "wild" / "none.mp4").write_bytes(b"nothing")
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([COLUMNS, *ROWS])
    return folder


def corrections(tmp_path, *rows):
    path = tmp_path / "corrections.csv"
    path.write_text("file,advance_ms,keep,reason\n" + "\n".join(rows) + "\n")
    return path


def test_leads_come_from_the_best_that_is_known(corpus, tmp_path):
    assert [clip.lead_frames for clip in read_corpus(corpus, corrections=None)] == [1.5, 0.25, 0.0]
    audited = corrections(tmp_path, "wild/b.mp4,-60,yes,heard", "wild/a.mp4,,no,two voices")
    clips = read_corpus(corpus, corrections=audited)
    assert [clip.lead_frames for clip in clips] == [0.0, -1.5, 0.0]
    assert [clip.left_out for clip in clips] == ["two voices", None, None]


def test_corrections_of_the_repository_are_for_its_own_corpus(corpus):
    assert CORRECTIONS.exists()
    assert read_corpus(corpus) == read_corpus(corpus, corrections=None)


def test_bad_corrections_are_refused(corpus, tmp_path):
    with pytest.raises(ConfigError, match="does not have"):
        read_corpus(corpus, corrections=corrections(tmp_path, "wild/z.mp4,0,yes,x"))
    with pytest.raises(ConfigError, match="bad row"):
        read_corpus(corpus, corrections=corrections(tmp_path, "wild/a.mp4,0,maybe,x"))
    (tmp_path / "manifest.csv").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_corpus(tmp_path)
    with pytest.raises(ConfigError, match="absent"):  # a slip of the pen is not "none"
        read_corpus(corpus, corrections=tmp_path / "absent.csv")


@pytest.mark.slow
def test_a_corpus_is_prepared_as_before_any_audit(corpus, tmp_path):
    audited = corrections(tmp_path, "wild/b.mp4,-60,yes,heard")
    leads = []
    for name, option in (("with", []), ("without", ["--uncorrected"])):
        command = ["prepare", str(corpus), "-o", str(tmp_path / name), "--only", "wild/b", "--jobs", "1"]
        assert CliRunner().invoke(app, [*command, "--corrections", str(audited), *option]).exit_code == 0
        leads += [clip.lead_frames for clip in read_manifest(tmp_path / name)]
    assert leads == [-1.5, 0.25]


@pytest.mark.slow
def test_a_corpus_becomes_a_cache_that_knows_its_reasons(corpus, tmp_path):
    cache = tmp_path / "cache"
    prepare(corpus, read_corpus(corpus, corrections=None), cache, jobs=1)
    good, moved, bad = read_manifest(cache)
    assert (good.frames, good.domain, good.reason) == (100, "wild", None)
    assert bad.machine_made
    assert "none.mp4" in (bad.reason or "")
    assert [clip.entry.file for clip in load_clips(cache, split="train")] == ["wild/a.mp4"]
    content = json.loads((cache / "manifest.json").read_text())
    content["contract"]["crop"] = "another"
    (cache / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="prepare the corpus again"):
        load_clips(cache, split="val")
    assert moved.lead_frames == 0.25


@pytest.mark.slow
def test_a_correction_moves_the_sound_exactly_and_leaves_the_pictures(corpus, tmp_path):
    cache = tmp_path / "cache"
    clip = read_corpus(corpus, corrections=None)[1]
    before = prepare_clip(corpus, clip, cache)
    with np.load(audio_path(cache, clip.file)) as audio:
        mel, origin = audio["mel"], int(audio["origin_tick"])
        assert int(audio["advance_samples"]) == 160
    picture_time = video_path(cache, clip.file).stat().st_mtime_ns
    audited = corrections(tmp_path, "wild/b.mp4,130,yes,audit")  # 10 + 120 ms: three frames more
    clip = read_corpus(corpus, corrections=audited)[1]
    after = prepare_clip(corpus, clip, cache)
    with np.load(audio_path(cache, clip.file)) as audio:
        assert int(audio["origin_tick"]) == origin + 3
        assert np.array_equal(audio["mel"], mel)
    assert video_path(cache, clip.file).stat().st_mtime_ns == picture_time
    assert after.video_sha256 == before.video_sha256
    assert after.audio_sha256 != before.audio_sha256
    assert prepare_clip(corpus, clip, cache) == after


@pytest.mark.slow
def test_batches_pair_each_window_with_its_own_sound(corpus, tmp_path):
    cache = tmp_path / "cache"
    prepare(corpus, read_corpus(corpus, corrections=None)[:1], cache, jobs=1)
    clip = load_clips(cache, split="train")[0]
    first, end = clip.run
    batch = make_batch([Section(clip, first), Section(clip, end - 5)], 12, 3)
    assert batch.validity.video.sum(1).tolist() == [12, 5]
    mels = audio_windows(batch.mel, batch.audio_steps).unflatten(0, (2, 18))
    for row, tick in ((0, first), (1, end - 5)):
        for place in range(5):
            expected = clip.mel.windows(np.array([tick + place]))[0].astype(np.float32)
            assert np.array_equal(mels[row, 3 + place].numpy(), expected)
    frames = batch.crops[1, batch.video_rows[1, 4]]
    assert np.array_equal(frames.numpy(), clip.crops[end - 1 - clip.first_tick])


def test_a_part_that_changed_is_refused(tmp_path):
    cache = make_cache(tmp_path / "cache")
    assert load_clips(cache, split="train")
    part = video_path(cache, "broadcast/1.mp4")
    part.write_bytes(part.read_bytes() + b"\0")
    with pytest.raises(ConfigError, match="not what the manifest says"):
        load_clips(cache, split="train")
    (cache / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="without a manifest"):
        open_cache(cache)


@pytest.mark.slow
def test_samples_are_kept_where_they_are_asked_for(corpus, tmp_path):
    """Without redoing the pictures, and beside a mel that is that of the samples."""
    cache, words = tmp_path / "cache", ["--only", "wild/b", "--uncorrected", "--jobs", "1"]
    for more in ([], ["--sound"], ["--sound"]):
        result = CliRunner().invoke(app, ["prepare", str(corpus), "-o", str(cache), *words, *more])
        assert result.exit_code == 0, result.output
        times = {path.name: path.stat().st_mtime_ns for path in cache.rglob("*.npz")}
        if not more:
            first = times
            assert load_clips(cache, split="val")[0].sound is None
    assert times["b.mp4.video.npz"] == first["b.mp4.video.npz"]
    assert times["b.mp4.audio.npz"] != first["b.mp4.audio.npz"]
    [clip] = load_clips(cache, split="val")
    mel = mel_spectrogram(clip.sound.astype(np.float32) / SOUND_FULL_SCALE)
    assert mel.shape == clip.mel.mel.shape
    assert np.abs(mel - clip.mel.mel).mean() < 0.01  # 16-bit samples, and a mel of half precision
    tick = clip.mel.origin_tick + 20  # 64 mel steps
    inside = chunk_mel(clip, tick)[:, 3:-3] - clip.mel.windows(np.array([tick]))[0][:, 3:-3]
    assert np.abs(inside).max() < 0.1  # away from a chunk's ends both are the same steps
