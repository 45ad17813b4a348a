"""Videos in a store that speaks S3, from listing to answer, through the command line."""

import json

import pytest
from test_cli import avsync

moto = pytest.importorskip("moto.server", reason="needs moto[server], of the extra `dev`")
boto3 = pytest.importorskip("boto3")
pytest.importorskip("s3fs", reason="needs the extra `remote`")

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def store():
    """A server on this machine: its address and a client to fill it with."""
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=address,
        region_name=KEYS["AWS_DEFAULT_REGION"],
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket="videos")
    yield address, client
    client.close()
    server.stop()


def test_a_bucket_is_scanned_resumed_and_checked_again_where_it_changed(store, tmp_path, heads, handmade):
    address, client = store
    results, temporary = tmp_path / "r.jsonl", tmp_path / "tmp"
    temporary.mkdir()
    environment = KEYS | {"AWS_ENDPOINT_URL": address, "TMPDIR": str(temporary)}

    def put(key: str, content: bytes) -> None:
        client.put_object(Bucket="videos", Key=key, Body=content)

    def scan(*options: object):
        arguments = ("scan", "s3://videos/in", "-o", results, "--model", handmade, "--jobs", 1, *options)
        result = avsync(*arguments, **environment)
        records = [json.loads(line) for line in results.read_bytes().splitlines()]
        return result, {record["path"].removeprefix("s3://videos/in/"): record for record in records}

    put("in/level.mp4", heads[0].read_bytes())
    put("in/deep/with space+ü.mp4", heads[160].read_bytes())
    put("in/broken.mp4", b"no video")
    put("in/notes.txt", b"no video")
    put("in/large.mp4", bytes(2 << 20))
    put("elsewhere.mp4", b"not asked for")
    result, records = scan("--copy-limit", 1)
    assert result.returncode == 4, result.stderr
    assert {key: record["status"] for key, record in records.items()} == {
        "level.mp4": "in_sync",
        "deep/with space+ü.mp4": "out_of_sync",
        "broken.mp4": "error",
        "large.mp4": "error",
    }
    assert records["large.mp4"]["reason"] == "too_large"
    assert "s3://videos/in/broken.mp4: Invalid" in records["broken.mp4"]["message"]
    assert records["level.mp4"]["size"] == heads[0].stat().st_size
    assert records["level.mp4"]["file"] == records["level.mp4"]["path"]
    assert not list(temporary.glob("avsync-*")), "no copies are left"

    before = results.read_bytes()
    assert scan("--resume")[0].returncode == 4
    assert results.read_bytes() == before
    put("in/broken.mp4", heads[0].read_bytes())
    result, records = scan("--resume")
    assert results.read_bytes().startswith(before)
    assert results.read_bytes().count(b"\n") == 5
    assert records["broken.mp4"]["status"] == "in_sync"


def test_a_bucket_that_is_not_there_is_one_line(store, tmp_path):
    environment = KEYS | {"AWS_ENDPOINT_URL": store[0]}
    result = avsync("scan", "s3://nothing/in", "-o", tmp_path / "r.jsonl", "-q", **environment)
    assert result.returncode == 4
    assert result.stderr.startswith("avsync: s3://nothing/in: ")
    assert result.stderr.count("\n") == 1
    assert (tmp_path / "r.jsonl").read_bytes() == b""


def test_a_check_copies_video_and_sound_from_where_they_are(store, tmp_path, heads, handmade):
    address, client = store
    client.upload_file(str(heads[160]), "videos", "checked/head.mp4")
    environment = KEYS | {"AWS_ENDPOINT_URL": address, "TMPDIR": str(tmp_path)}
    name = "s3://videos/checked/head.mp4"
    for extra in ((), ("--audio", name)):
        result = avsync("check", name, *extra, "--json", "--model", handmade, **environment)
        report = json.loads(result.stdout)
        assert (result.returncode, report["file"], report["status"]) == (1, name, "out_of_sync")
    missing = avsync("check", "s3://videos/none.mp4", "--model", handmade, **environment)
    assert missing.returncode == 4
    assert missing.stderr.startswith("avsync: s3://videos/none.mp4: ")
    assert missing.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
