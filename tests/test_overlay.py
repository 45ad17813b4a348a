"""The video with what was found drawn on it: the same pictures at the same times, and the sound as it was."""

import hashlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import barcode, write_clip
from containers import CONTAINERS, look_and_listen, write_clicks
from many_streams import write_many_streams
from test_cli import assert_one_line, avsync

from avsync_cli.check import check_and_keep
from avsync_cli.errors import ConfigError, WriteError
from avsync_cli.findings import Findings
from avsync_cli.media import open_media
from avsync_cli.options import CheckOptions
from avsync_cli.overlay import Part, name_face, write_overlay
from avsync_cli.report import PassageReport, Report, TimelinePoint
from avsync_cli.speakers import Verdict
from avsync_cli.timecode import parse_timecode

REPORT = Report("a", "in_sync", "audio and video are level", (-125, 45), audio_lead_ms=0.0, duration_s=2.0)
NOBODY = Findings([], [], Verdict(None))


def picture_times(path: Path) -> list[Fraction]:
    """From the first picture on, as the container says."""
    with av.open(str(path)) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    return [time - times[0] for time in times]


def sounds_of(path: Path) -> list[str]:
    """A digest of the packets of each sound."""
    with av.open(str(path)) as container:
        digests = {stream.index: hashlib.md5() for stream in container.streams.audio}
        for packet in container.demux():
            if packet.size and packet.stream_index in digests:
                digests[packet.stream_index].update(bytes(packet))
    return [digest.hexdigest() for digest in digests.values()]


@pytest.mark.parametrize(
    ("container", "suffix"),
    [*((container, ".mp4") for container in CONTAINERS), ("mkv", ".mkv"), ("mov", ".mov"), ("ogv", ".mkv")],
)
def test_pictures_and_sound_keep_their_times(tmp_path, container, suffix):
    path, out = write_clicks(tmp_path / f"a.{container}", **CONTAINERS[container]), tmp_path / f"b{suffix}"
    before = path.read_bytes()
    write_overlay(REPORT, NOBODY, path, out)
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [path, out]
    (pictures, clicks), (drawn_pictures, drawn_clicks) = look_and_listen(path), look_and_listen(out)
    assert drawn_pictures == pictures
    np.testing.assert_allclose(drawn_clicks, clicks, atol=0.6)
    if container not in ("m2ts", "ts", "mpg", "mxf", "avi"):  # whose packets are cut anew when they are read
        assert sounds_of(out) == sounds_of(path)


def test_irregular_times_odd_sizes_and_turns_are_kept(tmp_path):
    stamps_s = [Fraction(number * number, 900) for number in range(30)]
    path = write_clip(
        tmp_path / "a.mp4",
        stamps_s=stamps_s,
        paint=lambda number: barcode(number, width=194, height=130),
        time_base=Fraction(1, 90_000),
    )
    write_overlay(REPORT, NOBODY, path, tmp_path / "b.mp4")
    assert picture_times(tmp_path / "b.mp4") == picture_times(path) == stamps_s
    turned = write_many_streams(tmp_path / "c.mkv")
    write_overlay(REPORT, NOBODY, turned, tmp_path / "d.mkv")
    assert picture_times(tmp_path / "d.mkv") == picture_times(turned)
    assert sounds_of(tmp_path / "d.mkv") == sounds_of(turned)
    assert len(sounds_of(turned)) == 2
    with av.open(str(tmp_path / "d.mkv")) as container:
        frame = next(container.decode(video=0))
    assert (frame.width, frame.height, frame.rotation) == (128, 192, 0), "upright as it is"


def test_a_part_has_its_pictures_and_its_sound(tmp_path):
    path = write_clicks(tmp_path / "a.mp4", clicks_s=(0.5, 2.5, 3.0, 4.5), seconds=5, keyframe_every=25)
    write_overlay(REPORT, NOBODY, path, tmp_path / "b.mp4", part=Part(2.0, 4.0))
    pictures, clicks = look_and_listen(tmp_path / "b.mp4")
    assert pictures == list(range(50, 100))
    np.testing.assert_allclose(clicks, [500, 1000], atol=1)
    with av.open(str(tmp_path / "b.mp4")) as container:
        [sound] = container.streams.audio
        assert float(sound.duration * sound.time_base) == pytest.approx(2, abs=0.05), "to its end"


def test_faces_verdict_and_time_are_drawn_where_they_belong(tmp_path, heads, engine):
    out = tmp_path / "b.mp4"
    report, findings = check_and_keep(heads[160], CheckOptions(), engine)
    write_overlay(report, findings, heads[160], out)
    assert sounds_of(out) == sounds_of(heads[160])
    with open_media(heads[160]) as plain, open_media(out) as drawn:
        for one, other in zip(plain.pictures(), drawn.pictures(), strict=True):
            change = np.abs(one.rgb.astype(int) - other.rgb).max(axis=2)
            x0, y0, x1, y1 = (round(float(edge)) for edge in findings.faces[0][0].boxes[one.tick])
            edges = np.concatenate([change[y0, x0:x1], change[y0:y1, x0], change[y0:y1, x1]])
            assert np.mean(edges > 40) > 0.8, one.tick
            assert np.median(change[y0 + 8 : y1 - 8, x0 + 8 : x1 - 8]) < 8, "the face itself is as it was"
            assert np.median(change[:20, :150]) > 20
            assert np.median(change[200:, 200:]) < 8


def test_words_of_a_moment():
    from avsync_cli.overlay import _Artist

    report = replace(
        REPORT,
        passages=(PassageReport(0, 4), PassageReport(60, 64)),
        timeline=(TimelinePoint(0, 2, 80.0, 0.9, 20.0), TimelinePoint(60, 62, None, 0.2, None)),
    )
    artist = _Artist(report, NOBODY, parse_timecode("10:00:00:00", Fraction(25)))
    assert artist._describe_moment(1.0) == "0:01.00  10:00:01:00  here: +80 ms, 90%"
    assert artist._describe_moment(3.0).endswith("here: no offset")
    assert artist._describe_moment(30.0).endswith("not looked at")
    assert artist._describe_moment(61.0).endswith("here: no offset")
    assert artist._describe_moment(64.0).endswith("not looked at")
    assert [name_face(place) for place in (0, 25, 26, 701, 702)] == ["A", "Z", "AA", "ZZ", "AAA"]


def test_on_the_smallest_picture_words_are_inside(tmp_path):
    path = write_clip(tmp_path / "a.mp4", paint=lambda _: np.full((16, 16, 3), 200, np.uint8), seconds=0.4)
    write_overlay(replace(REPORT, message="x" * 500), NOBODY, path, tmp_path / "b.mp4")
    assert picture_times(tmp_path / "b.mp4") == picture_times(path)


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    path = write_clicks(tmp_path / "a.mkv", audio_codec="wavpack")
    with pytest.raises(ConfigError, match=r"b\.mp4: does not hold wavpack sound; name a \.mkv file"):
        write_overlay(REPORT, NOBODY, path, tmp_path / "b.mp4")
    with pytest.raises(WriteError, match="No such file"):
        write_overlay(REPORT, NOBODY, path, tmp_path / "missing" / "b.mp4")
    assert list(tmp_path.iterdir()) == [path]


def test_from_end_to_end(tmp_path, heads, handmade):
    out = tmp_path / "b.mp4"
    shown = ("--model", handmade, "--visualize")
    result = avsync("check", heads[160], *shown, out)
    assert (result.returncode, result.stderr) == (1, "")
    assert cv2.VideoCapture(str(out)).get(cv2.CAP_PROP_FRAME_COUNT) == 100
    kept = out.read_bytes()
    again = avsync("check", heads[160], *shown, out)
    assert (again.returncode, out.read_bytes()) == (2, kept)
    assert_one_line(again, "exists already", "--overwrite")
    assert avsync("check", heads[0], *shown, out, "--overwrite").returncode == 0
    assert out.read_bytes() != kept
    for arguments, words in (
        ((heads[0], *shown, heads[0], "--overwrite"), ["the input"]),
        ((heads[0], *shown, tmp_path / "c.avi"), ["c.avi", ".mp4"]),
        ((heads[0], *shown, tmp_path / "c.mp4", "--audio", heads[0]), ["--audio"]),
        ((heads[0], heads[160], *shown, tmp_path / "c.mp4"), ["one video"]),
        ((heads[0], *shown, tmp_path / "c.mp4", "--report", tmp_path / "c.mp4"), ["different files"]),
    ):
        refused = avsync("check", *arguments)
        assert refused.returncode == 2
        assert_one_line(refused, *words)
    assert list(tmp_path.iterdir()) == [out]
