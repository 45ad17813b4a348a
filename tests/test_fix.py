"""`avsync fix`: the sound is moved, everything else stays, and the input is never touched."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from containers import CONTAINERS, look_and_listen, write_clicks
from many_streams import hash_packets, write_many_streams
from test_cli import assert_one_line, avsync

from avsync_cli.errors import ConfigError, MediaError, WriteError
from avsync_cli.fix import FixOptions, fix_file
from avsync_cli.report import Report, StepReport

OUT_OF_SYNC = Report("a", "out_of_sync", "why", (-125, 45), audio_lead_ms=160.0, duration_s=8.0)


def never(path: Path) -> Report:
    raise AssertionError(f"{path} was not to be checked")


@pytest.mark.parametrize("by_ms", [237, -113])
@pytest.mark.parametrize("container", CONTAINERS)
def test_sound_is_moved_and_packets_stay(tmp_path, container, by_ms):
    path = write_clicks(tmp_path / f"a.{container}", **CONTAINERS[container])
    before = path.read_bytes()
    done = fix_file(path, never, FixOptions(by_ms=by_ms))
    assert path.read_bytes() == before
    assert [Path(done.out)] == [each for each in tmp_path.iterdir() if each != path]
    expected = "mkv" if container in ("avi", "mxf", "ogv") else container
    assert (done.status, Path(done.out).name) == ("fixed", f"a.synced.{expected}")
    assert (done.container_note is None) == (expected == container)
    assert hash_packets(Path(done.out)) == hash_packets(path)
    (pictures, clicks), (moved_pictures, moved) = look_and_listen(path), look_and_listen(Path(done.out))
    assert moved_pictures == pictures
    np.testing.assert_allclose(moved, clicks + by_ms, atol=1.5)


@pytest.mark.parametrize("by_ms", [237, -113])
@pytest.mark.parametrize("container", ["mp4", "mov", "mkv"])
def test_everything_else_is_kept(tmp_path, container, by_ms):
    path = write_many_streams(tmp_path / f"a.{container}")
    done = fix_file(path, never, FixOptions(by_ms=by_ms))
    assert (done.container_note, hash_packets(Path(done.out))) == (None, hash_packets(path))
    assert describe(Path(done.out)) == describe(path)
    late_ms = max(0, -by_ms)
    with av.open(str(path)) as old, av.open(done.out) as new:
        ends = [float(chapter["end"] * chapter["time_base"]) for chapter in old.chapters()]
        moved = [float(chapter["end"] * chapter["time_base"]) for chapter in new.chapters()]
        assert moved == pytest.approx([end + late_ms / 1000 for end in ends])
        titles = [
            [float(packet.pts * packet.time_base) for packet in each.demux(subtitles=0) if packet.size > 2]
            for each in (old, new)
        ]
        first = [next(each.decode(video=0)) for each in (open_again(path), open_again(Path(done.out)))]
    assert np.subtract(*titles) == pytest.approx(-late_ms / 1000, abs=0.002), "with the pictures"
    assert first[1].rotation == first[0].rotation != 0
    clicks, moved = look_and_listen(path)[1], look_and_listen(Path(done.out))[1]
    np.testing.assert_allclose(moved, clicks + by_ms, atol=1.5)


def open_again(path: Path):
    return av.open(str(path))


def describe(path: Path) -> list:
    """Kinds, marks and tags of the streams, tags of the file, and titles of the chapters."""
    own = {"DURATION", "encoder", "ENCODER", "compatible_brands", "minor_version"}
    made_anew = {"handler_name"}  # by the muxer, as the streams of timecodes and chapters are
    with av.open(str(path)) as container:
        streams = [
            (
                stream.type,
                stream.name,
                int(stream.disposition),
                strip(stream.metadata, own | made_anew if stream.type == "data" else own),
            )
            for stream in container.streams
        ]
        chapters = [chapter["metadata"] for chapter in container.chapters()]
        return [sorted(map(str, streams)), strip(container.metadata, own | {"timecode"}), chapters]


def strip(tags: dict[str, str], own: set[str]) -> dict[str, str]:
    return {name: value for name, value in tags.items() if name not in own}


def test_of_two_sounds_one_may_stay(tmp_path):
    path = write_many_streams(tmp_path / "a.mkv")
    done = fix_file(path, never, FixOptions(by_ms=200, audio_stream=1))
    assert hash_packets(Path(done.out)) == hash_packets(path)

    def starts_s(name: Path) -> list[float]:
        with av.open(str(name)) as file:
            return [float(stream.start_time * stream.time_base) for stream in file.streams.audio]

    before, after = starts_s(path), starts_s(Path(done.out))
    assert np.subtract(after, before) - (after[0] - before[0]) == pytest.approx([0, 0.2], abs=0.002)


def write_late_sound(path: Path) -> Path:
    """Three TS one behind the other, the second with another sound, where FFmpeg does not look at first."""
    rng, parts = np.random.default_rng(0), []
    for start, sounds in ((0, 1), (30, 2), (60, 1)):
        part = path.with_name("part.ts")
        with av.open(str(part), "w") as container:
            video = container.add_stream("mpeg2video", rate=25, options={"qmin": "1", "qmax": "1"})
            video.width, video.height, video.pix_fmt = 640, 360, "yuv420p"
            tones = [container.add_stream("mp2", rate=48_000, layout="mono") for _ in range(sounds)]
            for number in range(25):
                noise = rng.integers(0, 256, (360, 640, 3), np.uint8)
                frame = av.VideoFrame.from_ndarray(noise, "rgb24")
                frame.pts = start + number
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
            for tone in tones:
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.int16), "s16", "mono")
                frame.sample_rate, frame.pts = 48_000, start * 1920
                container.mux([*tone.encode(frame), *tone.encode(None)])
        parts.append(part.read_bytes())
        part.unlink()
    path.write_bytes(b"".join(parts))
    return path


def test_a_stream_that_begins_within_is_not_lost_in_silence(tmp_path):
    path = write_late_sound(tmp_path / "a.ts")
    with av.open(str(path)) as file:
        assert len(file.streams) == 2, "is to be seen too late"
    done = fix_file(path, never, FixOptions(by_ms=100))
    assert (done.status, done.out) == ("refused", None)
    assert "would lack audio (mp2), which begins within the file; --force" in done.message
    assert [each.name for each in tmp_path.iterdir()] == ["a.ts"]
    forced = fix_file(path, never, FixOptions(by_ms=100, force=True))
    assert forced.status == "fixed"
    assert forced.message.endswith("without audio (mp2)")


def test_a_name_that_lies_about_its_container_gets_matroska(tmp_path):
    path = write_clicks(tmp_path / "a.webm", **CONTAINERS["webm"]).rename(tmp_path / "a.mp4")
    done = fix_file(path, never, FixOptions(by_ms=100))
    assert (Path(done.out).name, "vp8" in done.container_note) == ("a.synced.mkv", True)
    with pytest.raises(ConfigError, match=r"vp8.*name a \.mkv"):
        fix_file(path, never, FixOptions(by_ms=100, out=tmp_path / "b.mp4"))
    with pytest.raises(ConfigError, match=r"AVI .*name a \.mkv"):
        fix_file(path, never, FixOptions(by_ms=100, out=tmp_path / "b.avi"))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.mp4", "a.synced.mkv"]


def test_the_input_is_never_the_output(tmp_path):
    path = write_clicks(tmp_path / "a.mp4")
    (tmp_path / "soft.mp4").symlink_to(path)
    os.link(path, tmp_path / "hard.mp4")
    (tmp_path / "folder.mp4").mkdir()
    before = path.read_bytes()
    for name, word in (
        ("a.mp4", "input"),
        ("soft.mp4", "input"),
        ("hard.mp4", "input"),
        ("folder.mp4", "folder"),
    ):
        with pytest.raises(ConfigError, match=word):
            fix_file(path, never, FixOptions(by_ms=100, out=tmp_path / name, overwrite=True))
    kept = tmp_path / "kept.mp4"
    kept.write_bytes(b"somebody's")
    with pytest.raises(ConfigError, match="--overwrite"):
        fix_file(path, never, FixOptions(by_ms=100, out=kept))
    assert (kept.read_bytes(), path.read_bytes()) == (b"somebody's", before)
    assert fix_file(path, never, FixOptions(by_ms=100, out=kept, overwrite=True)).status == "fixed"
    assert look_and_listen(kept)[1] == pytest.approx([600, 1100, 1600], abs=1.5)
    assert path.read_bytes() == before


def test_a_folder_that_is_not_there_and_a_full_disk_leave_nothing(tmp_path):
    path = write_clicks(tmp_path / "a.mp4", sound_start_s=Fraction(0))
    with pytest.raises(WriteError, match="No such file"):
        fix_file(path, never, FixOptions(by_ms=100, out=tmp_path / "missing" / "b.mp4"))
    size = path.stat().st_size
    full = subprocess.run(
        [sys.executable, "-m", "avsync_cli", "fix", str(path), "--by", "100"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2)),
    )
    assert full.returncode == 6, full.stderr
    assert_one_line(full, "a.synced.mp4", "too large")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("report", "options", "words"),
    [
        (Report("a", "undetermined", "cannot tell: no face", (-125, 45), reason="no_face"), {}, "no face"),
        (replace(OUT_OF_SYNC, course="steps"), {}, "--segments"),
        (replace(OUT_OF_SYNC, course="drift", drift_ms_per_min=20.0), {}, "--resample"),
        (replace(OUT_OF_SYNC, agreed=False), {}, "passages disagree: why; --force moves all by +160 ms"),
        (replace(OUT_OF_SYNC, course="steps", agreed=False), {"segments": True}, "passages disagree"),
        (
            replace(OUT_OF_SYNC, course="drift", drift_ms_per_min=20.0, agreed=False),
            {"resample": True},
            "passages disagree",
        ),
        (OUT_OF_SYNC, {}, "does not confirm"),  # since the check says the same of the copy
    ],
)
def test_what_cannot_be_relied_on_is_refused(tmp_path, report, options, words):
    path = write_clicks(tmp_path / "a.mp4")
    done = fix_file(path, lambda _: report, FixOptions(**options))
    assert (done.status, done.out) == ("refused", None)
    assert words in done.message
    assert done.exit_code == (3 if report.status == "undetermined" else 1)
    assert list(tmp_path.iterdir()) == [path]


def test_in_sync_is_left_alone_unless_forced(tmp_path):
    path = write_clicks(tmp_path / "a.mp4")
    report = Report("a", "in_sync", "fine", (-125, 45), audio_lead_ms=30.0)
    assert fix_file(path, lambda _: report).status == "nothing_to_fix"
    assert list(tmp_path.iterdir()) == [path]
    done = fix_file(path, lambda _: report, FixOptions(force=True))
    np.testing.assert_allclose(look_and_listen(Path(done.out))[1], [530, 1030, 1530], atol=1.5)


def confirmed(report: Report):
    """A check that finds this in the file, and its copy in sync."""
    return lambda path: report if "part" not in path.suffix else replace(report, status="in_sync")


@pytest.mark.parametrize("container", ["mp4", "mkv", "mov", "ts"])
def test_after_an_edit_each_stretch_is_moved_by_its_own(tmp_path, container):
    def lead_s(time_s: float) -> float:
        return 0.16 if time_s < 3 else 0.0 if time_s < 6 else -0.12

    times_s = np.arange(0.5, 9, 1.0)
    path = write_clicks(
        tmp_path / f"a.{container}",
        clicks_s=[time_s - lead_s(time_s) for time_s in times_s],
        seconds=9,
        **CONTAINERS[container],
    )
    steps = (StepReport(3, 0.5, 160, 0), StepReport(6, 0.5, 0, -120))
    report = replace(OUT_OF_SYNC, course="steps", steps=steps)
    done = fix_file(path, confirmed(report), FixOptions(segments=True))
    assert [each.delay_ms for each in done.stretches] == [160, 0, -120]
    assert done.left_out_packets > 0
    moved = look_and_listen(Path(done.out))[1]
    # Whole packets are left out, and a gap of less than 10 ms is none for a player, nor for us.
    np.testing.assert_allclose(moved, 1000 * times_s, atol=10)


def test_a_drift_of_an_avi_is_refused(tmp_path):
    """It would land 18 ms off."""
    path = write_clicks(tmp_path / "a.avi", seconds=4, **CONTAINERS["avi"])
    report = replace(OUT_OF_SYNC, file=str(path), course="drift", drift_ms_per_min=240.0, drift_start_ms=50.0)
    done = fix_file(path, confirmed(report), FixOptions(resample=True))
    assert (done.status, done.out) == ("refused", None)
    assert "AVI" in done.message


@pytest.mark.parametrize("container", ["mp4", "mkv", "mov"])
def test_a_drift_is_played_away(tmp_path, container):
    slope = 0.004  # s a second: 240 ms a minute
    times_s = np.arange(0.5, 19, 1.5)
    clicks_s = [time_s - (0.05 + slope * time_s) for time_s in times_s]
    path = write_clicks(tmp_path / f"a.{container}", clicks_s=clicks_s, seconds=20, **CONTAINERS[container])
    report = replace(OUT_OF_SYNC, course="drift", drift_ms_per_min=240.0, drift_start_ms=50.0)
    done = fix_file(path, confirmed(report), FixOptions(resample=True))
    assert done.recoded
    np.testing.assert_allclose(look_and_listen(Path(done.out))[1], 1000 * times_s, atol=7)
    old, new = hash_packets(path), hash_packets(Path(done.out))
    assert [each for each in old if each[0] == "video"] == [each for each in new if each[0] == "video"]


def test_from_end_to_end(tmp_path, heads, handmade):
    path = tmp_path / "head.mp4"
    path.write_bytes(heads[160].read_bytes())
    result = avsync("fix", path, "--model", handmade, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    done = json.loads(result.stdout)
    assert (done["status"], done["out"]) == ("fixed", str(tmp_path / "head.synced.mp4"))
    assert done["stretches"][0]["delay_ms"] == round(done["before"]["audio_lead_ms"])
    assert (done["before"]["status"], done["after"]["status"]) == ("out_of_sync", "in_sync")
    assert done["after"]["audio_lead_ms"] == pytest.approx(0, abs=10)
    assert hash_packets(tmp_path / "head.synced.mp4") == hash_packets(path)
    again = avsync("fix", path, "--model", handmade)
    assert again.returncode == 2
    assert_one_line(again, "exists already", "--overwrite")
    words = avsync("fix", tmp_path / "head.synced.mp4", "--model", handmade)
    assert (words.returncode, "nothing to fix: in sync already" in words.stdout) == (0, True)
    faceless = write_clicks(tmp_path / "faceless.mp4")
    unknown = avsync("fix", faceless, "--model", handmade)
    assert (unknown.returncode, "not fixed: by how much is not known" in unknown.stdout) == (3, True)


def test_what_is_no_video_is_4(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(MediaError, match=r"a\.mp4"):
        fix_file(path, never, FixOptions(by_ms=100))
    assert list(tmp_path.iterdir()) == [path]


KILLED = """if True:
    import itertools, os, signal, sys
    from pathlib import Path
    from avsync_cli.fix import FixOptions, fix_file
    path, by_ms, moment, spare = sys.argv[1:]
    # Imports what it needs.
    fix_file(path, None, FixOptions(by_ms=float(by_ms), overwrite=True, out=Path(spare)))
    moments = itertools.count(1)

    def count(*_):
        if next(moments) == int(moment):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    fix_file(path, None, FixOptions(by_ms=float(by_ms), overwrite=True))
    sys.setprofile(None)
    print(next(moments) - 1)"""


@pytest.mark.parametrize("times", [5, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.repeats])])
def test_killed_at_any_moment_nothing_is_half_written(tmp_path, times):
    """A moment is a call or a return, counted in a first run: how fast the machine is does not matter.

    Each run has another shift, so that a file under the final name tells which run wrote it.
    """
    path = write_clicks(tmp_path / "a.mp4", seconds=6)
    before, out = path.read_bytes(), tmp_path / "a.synced.mp4"

    def run(by_ms: int, moment: int) -> "subprocess.CompletedProcess[str]":
        words = [str(path), str(by_ms), str(moment), str(tmp_path / "spare.mp4")]
        return subprocess.run([sys.executable, "-c", KILLED, *words], stdout=subprocess.PIPE, text=True)

    moments, chance = int(run(100, 0).stdout), random.Random(0)
    last_ms, at_work = 100, 0
    for number in range(times + 1):
        by_ms = 101 + number
        ran = run(by_ms, round(moments * (number + chance.random()) / times))
        assert ran.returncode == (-signal.SIGKILL if number < times else 0)
        assert path.read_bytes() == before
        moved_ms = look_and_listen(out)[1][0] - 500
        # It has its name some moments before the run is over.
        allowed = [last_ms, by_ms] if number < times else [by_ms]
        assert any(moved_ms == pytest.approx(ms, abs=0.5) for ms in allowed)
        last_ms = round(moved_ms)
        unfinished = list(tmp_path.glob(".a.synced.mp4.*.part"))
        at_work += len(unfinished)
        for part in unfinished:
            part.unlink()
    assert at_work >= times // 3, "kills that landed while the copy was being written"
