"""Shards: every clip once an epoch, in an order of its own, from anywhere, in bounded memory."""

import io
import json
import tarfile
import tracemalloc
from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pytest
from colour_cache import make_colour_cache
from synthetic_cache import make_cache
from typer.testing import CliRunner
from webdataset.tariterators import group_by_keys, tar_file_expander

from avsync_cli.errors import ConfigError
from training.__main__ import app
from training.data.cache import PUBLISHED, read_manifest
from training.data.clips import load_clips
from training.data.loudness import loud_ticks
from training.data.shards import epoch_order, open_shards, read_index, write_shards
from training.data.sources import open_source

CLIPS = 30  # of which 20 are for training


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("data") / "cache", clips=CLIPS)


@pytest.fixture(scope="module")
def shards(cache):
    folder = cache.with_name("shards")
    write_shards(cache, folder, clips_per_shard=3)
    return folder


def places(source, *args, **options):
    return [(place, clip.entry.file) for place, clip in source.epoch(*args, **options)]


def test_shards_give_back_what_the_cache_holds(cache, shards):
    expected = {clip.entry.file: clip for clip in load_clips(cache, split="train")}
    source = open_source(shards, split="train", buffer=4)
    found = {clip.entry.file: clip for _, clip in source.epoch(0, 0)}
    assert found.keys() == expected.keys()
    for file, clip in found.items():
        assert clip.entry == expected[file].entry
        assert np.array_equal(clip.crops, expected[file].crops)
        assert np.array_equal(clip.lips, expected[file].lips)
        assert np.array_equal(clip.mel.mel, expected[file].mel.mel)
        assert clip.run == expected[file].run


def test_colour_survives(tmp_path):
    cache = make_colour_cache(tmp_path / "cache", clips=3)
    write_shards(cache, tmp_path / "shards", clips_per_shard=10)
    source = open_source(tmp_path / "shards", split="val")
    assert source.crop == open_source(cache, split="val").crop == PUBLISHED
    [(_, clip)] = source.epoch(0, 0)
    assert np.array_equal(clip.crops, load_clips(cache, split="val")[0].crops)
    assert clip.crops.shape[1:] == (48, 96, 3)


@pytest.mark.parametrize("kind", ["memory", "shards"])
def test_an_epoch_depends_on_its_seed_and_number_alone(kind, cache, shards):
    source = open_source(cache if kind == "memory" else shards, split="train", buffer=5)
    whole = places(source, 3, 7)
    assert [place for place, _ in whole] == list(range(20))
    assert len({file for _, file in whole}) == source.clips_per_epoch == 20
    assert places(source, 3, 7) == whole
    others = [places(source, *numbers) for numbers in ((3, 8), (4, 7), (7, 3))]
    assert all(
        other != whole and sorted(f for _, f in other) == sorted(f for _, f in whole) for other in others
    )
    for skip in (1, 7, 19, 20):
        assert places(source, 3, 7, skip=skip) == whole[skip:]
    shares = [places(source, 3, 7, skip=6, rank=rank, world=3) for rank in range(3)]
    assert [[place % 3 for place, _ in share] for share in shares] == [[0] * 5, [1] * 5, [2] * 4]
    assert sorted(chain(*shares)) == whole[6:]


def test_the_buffer_mixes_shards_no_further_than_it_is_large():
    arrivals, order = epoch_order([10] * 20, seed=0, epoch=0, buffer=32)
    assert sorted(arrivals) == [(shard, clip) for shard in range(20) for clip in range(10)]
    assert sorted(order) == list(range(200))
    early = np.arange(200) - np.array(order)  # by how many places a clip leaves after it was read
    assert early.min() >= -31
    neighbours = [arrivals[a][0] == arrivals[b][0] for a, b in pairwise(order)]
    assert np.mean(neighbours) < 0.4  # 0.9 without mixing
    assert epoch_order([10] * 20, seed=0, epoch=0, buffer=1)[1] == list(range(200))


def test_of_a_clip_only_what_is_looked_at_is_read(tmp_path):
    cache = make_colour_cache(tmp_path / "cache", clips=45, frames=40)
    write_shards(cache, tmp_path / "shards", clips_per_shard=8)
    source = open_source(tmp_path / "shards", split="train", buffer=4)
    clip_bytes = 40 * 48 * 96 * 3
    list(source.epoch(0, 0))  # which compares the hashes
    tracemalloc.start()
    try:
        count = sum(1 for _ in source.epoch(0, 0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 30
    assert peak < clip_bytes / 2


def test_shards_of_before_there_was_loudness_give_the_same_pairs(tmp_path, cache):
    folder = tmp_path / "shards"
    write_shards(cache, folder, clips_per_shard=100)
    source = open_source(folder, split="train")
    (path,) = (folder / shard.file for shard in source.shards)
    with tarfile.open(path) as tar, tarfile.open(tmp_path / "old.tar", "w") as old:
        for member in tar:
            if not member.name.endswith(".loud.npy"):
                old.addfile(member, tar.extractfile(member))
    path.write_bytes((tmp_path / "old.tar").read_bytes())
    older = replace(source, verify=False)
    clips = dict(older.epoch(0, 0))
    assert all(clip.loud is None for clip in clips.values())
    again = tmp_path / "again"
    write_shards(cache, again, clips_per_shard=100)
    for place, clip in open_source(again, split="train").epoch(0, 0):
        assert np.array_equal(clip.loud, loud_ticks(clips[place].mel))


def test_a_shard_that_is_not_ours_is_refused(tmp_path, cache):
    folder = tmp_path / "shards"
    write_shards(cache, folder, clips_per_shard=100)
    source = replace(open_source(folder, split="train"), verify=False)
    (path,) = (folder / shard.file for shard in source.shards)
    whole = path.read_bytes()
    packed = io.BytesIO()
    np.savez_compressed(packed, crops=np.zeros((9, 48, 96), np.uint8))
    with tarfile.open(path, "w") as tar:
        for name, data in (("0.json", b"{}"), ("0.video.npz", packed.getvalue())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with pytest.raises(ConfigError, match=r"\.tar: "):
        places(source, 0, 0)
    path.write_bytes(whole[:1000])
    with pytest.raises(ConfigError, match=r"\.tar: "):
        places(source, 0, 0)


def test_what_is_skipped_is_not_read(tmp_path, cache):
    folder = tmp_path / "shards"
    write_shards(cache, folder, clips_per_shard=5)
    source = open_source(folder, split="train", buffer=1)
    arrivals, _ = epoch_order([5] * 4, seed=0, epoch=0, buffer=1)
    expected = places(source, 0, 0)[5:]
    (folder / source.shards[arrivals[0][0]].file).unlink()
    assert places(source, 0, 0, skip=5) == expected
    with pytest.raises(ConfigError, match="No such file"):
        places(source, 0, 0)


def test_a_damaged_shard_is_refused(tmp_path, cache):
    folder = tmp_path / "shards"
    first = write_shards(cache, folder, clips_per_shard=8)[0]
    source = open_source(folder, split="train")
    path = folder / first.file
    assert len(places(source, 0, 0)) == 20
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=rf"{first.file}: damaged"):
        places(source, 0, 0)


def test_short_clips_can_be_left_out(tmp_path):
    cache = make_cache(tmp_path / "cache", clips=3, frames=20)
    write_shards(cache, tmp_path / "shards", clips_per_shard=2)
    for folder in (cache, tmp_path / "shards"):
        assert open_source(folder, split="train", min_windows=16).clips_per_epoch == 2
        with pytest.raises(ConfigError, match="has 17 windows"):
            open_source(folder, split="train", min_windows=17)


def test_the_same_cache_gives_the_same_shards(tmp_path, cache, shards):
    again = write_shards(cache, tmp_path / "again", clips_per_shard=3)
    assert read_index(shards) == ("grey", again)
    assert {shard.split for shard in again} == {"train", "val"}
    assert sum(len(shard.windows) for shard in again) == len(read_manifest(cache)) == CLIPS


def test_the_command_says_what_it_wrote(tmp_path, cache):
    words = ["shard", str(cache), "-o", str(tmp_path / "shards"), "--clips-per-shard", "7"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "30 clips in 5 shards" in result.output
    assert [path.name for path in sorted((tmp_path / "shards").iterdir())] == [
        "index.json",
        *("train-00000.tar", "train-00001.tar", "train-00002.tar"),
        *("val-00000.tar", "val-00001.tar"),
    ]


def test_an_index_that_does_not_fit_is_refused(tmp_path, cache):
    folder = tmp_path / "shards"
    write_shards(cache, folder, clips_per_shard=50)
    with pytest.raises(ConfigError, match="already holds shards"):
        write_shards(cache, folder, clips_per_shard=50)
    with pytest.raises(ConfigError, match="split 'test'"):
        open_shards(folder, split="test")
    content = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(content | {"version": 2}))
    with pytest.raises(ConfigError, match="another version"):
        read_index(folder)
    (folder / "index.json").write_text("{}")
    with pytest.raises(ConfigError, match="no index"):
        read_index(folder)


def test_webdataset_reads_them(shards):
    [first, *_] = [shard for shard in read_index(shards)[1] if shard.split == "val"]
    with (shards / first.file).open("rb") as stream:
        samples = list(group_by_keys(tar_file_expander([{"url": first.file, "stream": stream}])))
    assert len(samples) == len(first.windows) == 3
    clips = {clip.entry.file: clip for _, clip in open_source(shards, split="val").epoch(0, 0)}
    for sample in samples:
        clip = clips[json.loads(sample["json"])["file"]]
        with (
            np.load(io.BytesIO(sample["video.npz"])) as video,
            np.load(io.BytesIO(sample["audio.npz"])) as audio,
        ):
            assert np.array_equal(video["crops"], clip.crops)
            assert np.array_equal(audio["mel"], clip.mel.mel)
