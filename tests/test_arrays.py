"""Pictures and sound as arrays, and videos as bytes and open files: the same verdict as of the file."""

import io
from decimal import Decimal
from fractions import Fraction

import av
import numpy as np
import pytest
from clips import write_clip
from talking import RATE, TalkingHead, syllables, voice

from avsync_cli import ConfigError, MediaError, check_arrays, check_file

SECONDS = 4
LEAD_S = 0.16


@pytest.fixture(scope="module")
def lossless(tmp_path_factory):
    """A talking head without loss, as a file and as what is in it: pictures, and sound [2, S]."""
    loudness = syllables(SECONDS + 2.0)
    head = TalkingHead(loudness[100:], fps=Fraction(25))
    first = round((1.0 + LEAD_S) * RATE)
    sound = voice(loudness)[first : first + SECONDS * RATE]
    both = np.stack([sound, 0.5 * sound])
    path = write_lossless(tmp_path_factory.mktemp("lossless") / "head.mkv", head, both)
    return path, *decode(path)


def write_lossless(path, paint, sound, **stamps):
    return write_clip(
        path, seconds=SECONDS, paint=paint, sound=sound, rate=RATE, layout="stereo",
        video_codec="ffv1", pixel_format="bgr0", audio_codec="pcm_s16le", time_base=Fraction(1, 1000),
        **stamps,
    )  # fmt: skip


def decode(path):
    """What PyAV makes of a file, as a user of it would: pictures [N, H, W, 3], sound [C, S] in int16."""
    pictures, sound = [], []
    with av.open(str(path)) as container:
        for frame in container.decode():
            if isinstance(frame, av.VideoFrame):
                pictures.append(frame.to_ndarray(format="rgb24"))
            else:
                sound.append(frame.to_ndarray().reshape(-1, len(frame.layout.channels)).T)
    return np.stack(pictures), np.concatenate(sound, axis=1)


@pytest.fixture(scope="module")
def from_file(lossless, engine):
    report = check_file(lossless[0], engine=engine)
    assert report.status == "out_of_sync"
    return report


def assert_same(report, other):
    assert (report.status, report.direction, report.course) == (other.status, other.direction, other.course)
    assert report.audio_lead_ms == pytest.approx(other.audio_lead_ms, abs=1)
    assert report.confidence == pytest.approx(other.confidence, abs=0.001)
    assert len(report.tracks) == len(other.tracks)
    assert report.looked_at_s == other.looked_at_s


def test_arrays_have_the_verdict_of_their_file(lossless, from_file, engine):
    _, pictures, sound = lossless
    report = check_arrays(pictures, fps=25, audio=sound, sample_rate=RATE, engine=engine)
    assert_same(report, from_file)
    assert (report.file, report.full, report.decoded_pictures) == ("arrays", True, len(pictures))
    assert (report.duration_s, report.fps) == (SECONDS, 25)
    floats = check_arrays(
        pictures, fps=25, audio=sound / 32_768, sample_rate=RATE, engine=engine, name="the studio"
    )
    assert_same(floats, from_file)
    assert floats.file == "the studio"


@pytest.mark.slow
def test_odd_times_and_late_sound_are_as_in_a_file(lossless, from_file, engine, tmp_path):
    """Pictures one by one, one in two left out for a while; the sound from its middle on."""
    _, pictures, sound = lossless
    kept = [k for k in range(len(pictures)) if not (20 <= k < 40 and k % 2)]
    late_s = Fraction(3, 4)
    late = sound[:, round(late_s * RATE) :]
    path = write_lossless(
        tmp_path / "odd.mkv",
        lambda number: pictures[kept[number]],
        late / np.float32(32_768),
        stamps_s=[Fraction(k, 25) for k in kept],
        sound_start_s=late_s,
    )
    clock_s = Fraction(1000, 7)
    report = check_arrays(
        ((pictures[k], clock_s + Fraction(k, 25)) for k in kept),
        audio=late,
        audio_start_s=clock_s + late_s,
        sample_rate=RATE,
        engine=engine,
    )
    assert_same(report, check_file(path, engine=engine))
    assert report.audio_lead_ms == pytest.approx(from_file.audio_lead_ms, abs=15)
    early = check_arrays(pictures, fps=25, audio=sound, audio_start_s=-0.2, sample_rate=RATE, engine=engine)
    assert early.audio_lead_ms == pytest.approx(from_file.audio_lead_ms + 200, abs=4)


def test_no_more_pictures_are_taken_than_asked_for(lossless, engine):
    _, pictures, sound = lossless
    taken = []

    def endless():
        for number in range(10**9):
            taken.append(number)
            yield pictures[min(number, len(pictures) - 1)], number / 25

    report = check_arrays(
        endless(), audio=sound, sample_rate=RATE, engine=engine, start_s=1, end_s=3.4, name="camera"
    )
    assert report.status == "out_of_sync"
    assert (report.passages[0].start_s, report.passages[0].end_s) == (1, 3.4)
    assert len(taken) == report.decoded_pictures < 100


def test_a_student_takes_part_in_the_options(lossless, engine):
    _, pictures, sound = lossless
    report = check_arrays(
        pictures, fps=25, audio=sound, sample_rate=RATE, engine=engine, tolerance="200", range_frames=20
    )
    assert (report.status, report.limits_ms, len(report.curve)) == ("in_sync", (-200, 200), 41)


PICTURES, SOUND = np.zeros((50, 64, 64, 3), np.uint8), np.zeros(32_000, np.float32)
RISING = [(PICTURES[0], 0.0), (PICTURES[0], 0.04)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frames": PICTURES[0]}, r"uint8 \[64, 64, 3\] are no pictures: uint8 \[N, H, W, 3\]"),
        ({"frames": PICTURES.astype(np.float32)}, r"picture 0: float32 \[64, 64, 3\] is no picture"),
        ({"frames": PICTURES[..., :1]}, "picture 0: .* is no picture"),
        ({"fps": None}, "an array of pictures needs fps"),
        ({"fps": 0}, "fps 0: must be above 0"),
        ({"fps": float("nan")}, "fps: nan is no time"),
        ({"frames": RISING}, "have no fps"),
        ({"frames": RISING[::-1], "fps": None}, "picture 1 is at 0 s, not later than"),
        ({"frames": [PICTURES[0]], "fps": None}, "picture 0: is no pair"),
        ({"frames": [(PICTURES[0], float("inf"))], "fps": None}, "picture 0: inf is no time"),
        ({"audio": SOUND.astype(np.int64)}, r"audio: int64 \[32000\] is no sound"),
        ({"audio": SOUND.reshape(-1, 2)}, r"\[16000, 2\] must be \[channels, S\]: turn it"),
        ({"audio": np.full_like(SOUND, np.nan)}, "no numbers"),
        ({"audio": SOUND + 20_000}, "samples of up to 20000"),
        ({"audio_start_s": "later"}, "audio_start_s: 'later' is no time"),
        ({"audio_start_s": "1/0"}, "audio_start_s: '1/0' is no time"),
        ({"audio_start_s": None}, "audio_start_s: None is no time"),
        ({"audio_start_s": 1j}, "audio_start_s: 1j is no time"),
        ({"audio_start_s": True}, "audio_start_s: True is no time"),
        ({"audio_start_s": 1e300}, r"audio_start_s: 1e\+300 is no time"),
        ({"audio_start_s": 10**5000}, "audio_start_s: so large a number is no time"),
        ({"audio_start_s": Fraction(10**5000)}, "audio_start_s: .* is no time"),
        ({"audio_start_s": Decimal("1e999999999")}, "audio_start_s: .* is no time"),
        ({"audio_start_s": Decimal("1e-999999999")}, "audio_start_s: .* is no time"),
        ({"audio_start_s": Decimal("sNaN")}, "audio_start_s: .* is no time"),
        ({"audio_start_s": np.zeros((9, 9))}, "audio_start_s: array.* is no time"),
        ({"fps": 1e-300}, "fps 1e-300: must be 0.001 or more"),
        ({"audio_start_s": np.float32("inf")}, "audio_start_s: .*inf.* is no time"),
        ({"sample_rate": 0}, "sample_rate 0: must be a whole number"),
        ({"sample_rate": 44_100.5}, "sample_rate 44100.5: must be a whole number"),
        ({"audio_stream": 1}, "the sound is the array"),
        ({"start_s": 3, "end_s": 2}, "must begin at 0 or later"),
    ],
)
def test_arrays_that_are_something_else_are_refused(engine, changes, words):
    given = {"frames": PICTURES, "fps": 25, "audio": SOUND, "sample_rate": 16_000} | changes
    with pytest.raises(ConfigError, match=words) as caught:
        check_arrays(given.pop("frames"), engine=engine, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"frames": PICTURES[:0]}, "no_video"),
        ({"audio": SOUND[:0]}, "no_audio"),
        ({"sample_rate": 1000}, "unreadable"),
        ({"frames": np.zeros((2, 2000, 8, 3), np.uint8)}, "unreadable"),
    ],
)
def test_arrays_with_nothing_or_too_much_in_them_are_media_errors(engine, changes, reason):
    given = {"frames": PICTURES, "fps": 25, "audio": SOUND, "sample_rate": 16_000} | changes
    with pytest.raises(MediaError) as caught:
        check_arrays(given.pop("frames"), engine=engine, name="camera", **given)
    assert caught.value.reason == reason
    assert str(caught.value).startswith("camera: ")


@pytest.mark.slow
def test_bytes_and_open_files_are_checked_as_their_file(tmp_path, engine, heads, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "private"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "private").mkdir()
    data = heads[160].read_bytes()
    from_file = check_file(heads[160], engine=engine, end_s=1.6)
    for given, name in ((memoryview(data), "bytes"), (io.BytesIO(data), "file object")):
        report = check_file(given, engine=engine, end_s=1.6)
        assert (report.file, report.audio_lead_ms) == (name, from_file.audio_lead_ms)
    with heads[160].open("rb") as file:
        assert check_file(file, engine=engine, end_s=1.2).file == str(heads[160])
    assert list((tmp_path / "private").iterdir()) == []


def test_what_is_no_video_is_refused_by_its_name(tmp_path, engine):
    with pytest.raises(MediaError, match=r"^bytes: "):
        check_file(b"no video", engine=engine)
    for wrong in (io.StringIO("text"), 7):
        with pytest.raises(ConfigError, match="is no video"):
            check_file(wrong, engine=engine)
    mute = write_clip(tmp_path / "mute.mp4", seconds=0.4)
    with pytest.raises(MediaError, match=r"^bytes: no audio stream$"):
        check_file(mute.read_bytes(), engine=engine)
