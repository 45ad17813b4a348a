"""What `avsync watch` takes for a source, and that its name keeps no secret."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsync_cli import ConfigError
from avsync_cli.live.source import Source


@pytest.mark.parametrize(
    ("address", "changes", "words"),
    [
        ("gopher://a/b", {}, "gopher is none of http"),
        ("file:///etc/passwd", {}, "file is none of"),
        ("/dev/video0", {"form": "lavfi"}, "is for cameras"),
        ("a.ts", {"sound": "hw:0", "sound_form": "alsa"}, "with --format"),
        ("/dev/video0", {"form": "v4l2", "sound": "hw:0"}, "--sound-format"),
        ("a.ts", {"wait_s": -1}, "--wait"),
    ],
)
def test_what_cannot_be_watched_is_refused(address, changes, words):
    with pytest.raises(ConfigError, match=words):
        Source(address, **changes)


@given(
    user=st.text("abz%", min_size=1, max_size=5),
    secret=st.text("ab@:%!$&'()*+,;=-._~", min_size=1, max_size=12).map(lambda text: f"Zq{text}Zq"),
    path=st.sampled_from(["", "/", "/live@home", "/a/b.m3u8"]),
    query=st.sampled_from(["?", "?key=", "#", "?a=b&c=/"]),
)
def test_a_name_keeps_no_secret(user, secret, path, query):
    assert Source(f"rtsp://{user}:{secret}@camera.local:554{path}").name == f"rtsp://camera.local:554{path}"
    assert Source(f"https://camera.local{path}{query}{secret}").name == f"https://camera.local{path}"
    assert secret not in Source(f" rtsp://{user}:{secret}@camera.local{path}").name


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("rtsp://user:Zq/Zq@camera.local:554/live", "rtsp://camera.local:554/live"),
        ("rtsp://user:5Zq#Z@Zq@camera.local/live", "rtsp://camera.local/live"),
        ("http://user:?Zq@camera.local", "http://camera.local"),
        ("http://user:/Zq@camera.local", "http://camera.local"),
        ("http://user:Zq?Zq@camera.local/live?key=Zq", "http://camera.local/live"),
        ("rtsp://[::1]:554/live@home", "rtsp://[::1]:554/live@home"),
        ("http://camera.local:80", "http://camera.local:80"),
        ("http://camera.local/12:30@home", "http://camera.local/12:30@home"),
    ],
)
def test_a_password_that_had_to_be_written_otherwise_is_not_shown_either(address, name):
    """What it is taken for cannot be opened, and the name is in what is said of that."""
    assert Source(address).name == name
