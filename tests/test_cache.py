"""What makes a cache one of ours."""

import json

import pytest
from synthetic_cache import make_cache

from avsync_cli.errors import ConfigError
from training.data.cache import read_manifest
from training.data.shards import read_index, write_shards

FIRST_TERMS = {  # what the first caches declared, beside what has stayed
    "format": "avsync-student",
    "version": 1,
    "range_frames": 15,
    "mel": {"n_fft": 800, "hop_samples": 200, "bins": 80, "min_hz": 55.0, "max_hz": 7600.0},
}


def test_caches_and_shards_outlive_a_version_of_the_contract(tmp_path):
    cache = make_cache(tmp_path / "cache", clips=3)
    write_shards(cache, tmp_path / "shards", clips_per_shard=2)
    clips, index = read_manifest(cache), read_index(tmp_path / "shards")
    for path, read, expected in (
        (cache / "manifest.json", lambda: read_manifest(cache), clips),
        (tmp_path / "shards" / "index.json", lambda: read_index(tmp_path / "shards"), index),
    ):
        content = json.loads(path.read_text())
        now = content["contract"]
        assert "version" not in now
        path.write_text(json.dumps(content | {"contract": now | FIRST_TERMS}))
        assert read() == expected
        path.write_text(json.dumps(content | {"contract": now | {"mel": now["mel"] | {"floor": 1e-4}}}))
        with pytest.raises(ConfigError, match="made for another version or other inputs"):
            read()
