"""`avsync bench`: what is timed adds up, and what is recommended follows from it."""

import json
from dataclasses import replace

import av
import pytest
from students import add_int8, write_student
from test_cli import assert_one_line, avsync

from avsync_cli.bench import Speed, recommend, thread_counts, write_clip

STAGES = ("decode_ms", "detect_ms", "mesh_ms", "encode_ms", "score_ms")


def speed(precision: str, threads: int, total_ms: float) -> Speed:
    return Speed(precision, threads, 0, 0, 0, 0, 0, total_ms, total_ms / 40)


def test_every_precision_is_timed_on_every_number_of_threads_and_stages_add_up(tmp_path):
    folder = add_int8(write_student(tmp_path / "student"))
    result = avsync("bench", "--json", "--seconds", 1, "--threads", "1,2", "--model", folder)
    assert (result.returncode, result.stderr) == (0, "")
    benchmark = json.loads(result.stdout)
    assert list(benchmark) == [
        "schema_version", "cpu", "student", "clip", "auto", "speeds", "recommended"
    ]  # fmt: skip
    runs = [(run["precision"], run["threads"]) for run in benchmark["speeds"]]
    assert runs == [("fp32", 1), ("int8", 1), ("fp32", 2), ("int8", 2)]
    for run in benchmark["speeds"]:
        assert all(run[stage] > 0 for stage in STAGES)
        assert run["total_ms"] == pytest.approx(sum(run[stage] for stage in STAGES))
        assert run["real_time_factor"] == pytest.approx(run["total_ms"] / 40)
    assert benchmark["recommended"] in benchmark["speeds"]
    words = avsync("bench", "--seconds", 1, "--threads", "1", "--model", folder).stdout
    assert "use        --precision" in words
    assert "int8" in words


def test_the_clip_has_the_pictures_and_the_sound_that_are_counted(tmp_path):
    for seconds in (1, 2):
        with av.open(str(write_clip(tmp_path / "clip.mp4", seconds=seconds))) as container:
            assert sum(1 for _ in container.decode(video=0)) == 25 * seconds
        with av.open(str(tmp_path / "clip.mp4")) as container:
            samples = sum(frame.samples for frame in container.decode(audio=0))
        assert samples == pytest.approx(16_000 * seconds, abs=2048)


def test_fewer_threads_and_floats_are_preferred_where_little_is_lost():
    slow, fast = speed("fp32", 1, 100), speed("int8", 1, 50)
    assert recommend([slow, fast]) == fast
    assert recommend([slow, replace(fast, total_ms=95)]) == slow
    assert recommend([fast, speed("int8", 2, 48)]) == fast
    assert recommend([fast, speed("int8", 2, 30)]).threads == 2
    assert recommend([speed("int8", 2, 30), speed("fp32", 2, 31)]).precision == "fp32"


def test_threads_double_up_to_all_cores():
    assert [thread_counts(cores) for cores in (1, 2, 4, 6)] == [[1], [1, 2], [1, 2, 4], [1, 2, 4, 6]]


@pytest.mark.parametrize(
    "options",
    [
        ("--threads", "0"),
        ("--threads", "1,x"),
        ("--threads", "1,5000"),
        ("--seconds", "0"),
        ("--seconds", "nan"),
    ],
)
def test_what_cannot_be_timed_is_2(options):
    result = avsync("bench", *options)
    assert result.returncode == 2
    assert_one_line(result)
