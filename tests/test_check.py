"""The whole path on talking heads whose offset is known: decoding, faces, windows, scan, report."""

from fractions import Fraction

import numpy as np
import pytest
import soundfile
from clips import barcode, write_clip
from students import write_student
from talking import RATE, TalkingHead, syllables, voice, write_talking_head

from avsync_cli import ConfigError, MediaError, ModelError, check_file
from avsync_cli.display import print_report
from avsync_cli.report import PassageReport, Report
from avsync_cli.spec import FACE_CROP_DEFINITION, TOLERANCES, parse_tolerance

# The hand-made student compares a 40 ms picture with the loudness around it: its zero is off by a
# constant of less than half a frame. Differences between files do not contain it.
ZERO_MS = 20.0


@pytest.fixture(scope="module")
def zero_ms(engine, heads):
    lead_ms = check_file(heads[0], engine=engine).audio_lead_ms
    assert abs(lead_ms) <= ZERO_MS
    return lead_ms


@pytest.mark.parametrize("lead_ms", [160, -280])
def test_a_planted_offset_is_reported_with_its_sign(engine, heads, zero_ms, lead_ms):
    report = check_file(heads[lead_ms], engine=engine)
    assert report.status == "out_of_sync"
    assert report.audio_lead_ms - zero_ms == pytest.approx(lead_ms, abs=4)
    assert report.audio_lead_frames == pytest.approx(report.audio_lead_ms / 40)
    assert report.direction == ("audio_leads" if lead_ms > 0 else "audio_lags")
    assert np.argmax(report.curve) - 15 == lead_ms // 40


def test_a_synchronous_head_is_in_sync(engine, heads):
    report = check_file(heads[0], engine=engine)
    assert (report.status, report.direction, report.reason) == ("in_sync", "in_sync", None)
    assert len(report.tracks) == 1
    assert report.tracks[0].start_s == 0
    assert report.tracks[0].end_s == pytest.approx(4.0)


@pytest.mark.parametrize("lead_ms", [900, -900])
def test_an_offset_beyond_the_range_is_found_in_a_wider_one_by_itself(tmp_path, engine, zero_ms, lead_ms):
    head = write_talking_head(tmp_path / "head.mp4", audio_lead_ms=lead_ms, seconds=8)
    report = check_file(head, engine=engine)
    assert report.status == "out_of_sync"
    assert report.audio_lead_ms - zero_ms == pytest.approx(lead_ms, abs=8)
    assert (report.range_frames, len(report.curve)) == (100, 201)


def test_an_offset_within_the_range_needs_no_wider_one(engine, heads):
    report = check_file(heads[160], engine=engine)
    assert (report.range_frames, len(report.curve)) == (15, 31)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fps",
    [
        Fraction(24000, 1001),
        pytest.param(Fraction(30000, 1001), marks=pytest.mark.repeats),
        pytest.param(Fraction(50), marks=pytest.mark.repeats),
        Fraction(60),
    ],
)
def test_every_frame_rate_gives_the_same_offset(tmp_path, engine, zero_ms, fps):
    path = write_talking_head(tmp_path / "head.mp4", audio_lead_ms=-120, fps=fps)
    assert check_file(path, engine=engine).audio_lead_ms - zero_ms == pytest.approx(-120, abs=20)


def test_a_separate_sound_file_replaces_the_sound(tmp_path, engine, heads, zero_ms):
    loudness = syllables(6.0)
    sound = tmp_path / "voice.wav"
    soundfile.write(sound, voice(loudness)[round((1.0 + 0.2) * RATE) :], RATE)
    report = check_file(heads[-280], audio=sound, engine=engine)
    assert report.audio_lead_ms - zero_ms == pytest.approx(200, abs=4)


def test_a_passage_is_checked_alone(engine, heads, zero_ms):
    report = check_file(heads[160], engine=engine, start_s=1.0, end_s=3.0)
    assert report.tracks[0].start_s == 1.0
    assert report.tracks[0].end_s == 3.0
    assert report.audio_lead_ms - zero_ms == pytest.approx(160, abs=10)


def test_silence_still_pictures_and_short_clips_are_refused(tmp_path, engine):
    quiet = np.zeros(4 * RATE, np.float32)
    faceless = write_clip(tmp_path / "bars.mp4", seconds=2, sound=quiet, rate=RATE)
    assert check_file(faceless, engine=engine).reason == "no_face"
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, quiet, RATE)
    head = write_talking_head(tmp_path / "head.mp4", seconds=2)
    assert check_file(head, audio=silent, engine=engine).reason == "no_speech"
    assert check_file(head, engine=engine, end_s=0.8).reason == "too_short"


def test_a_student_of_faces_checks_files(tmp_path, engine, heads):
    """The hand-made student looks at the lips alone: what it says does not depend on the crops."""
    faces = write_student(tmp_path / "faces", crop=FACE_CROP_DEFINITION)
    report = check_file(heads[160], model=faces, threads=1)
    assert report.audio_lead_ms == pytest.approx(check_file(heads[160], engine=engine).audio_lead_ms)


def test_media_errors_have_their_reason(tmp_path, engine):
    mute = write_clip(tmp_path / "mute.mp4", seconds=0.4)
    with pytest.raises(MediaError, match="no audio stream") as caught:
        check_file(mute, engine=engine)
    assert caught.value.reason == "no_audio"
    with pytest.raises(MediaError, match="missing"):
        check_file(tmp_path / "missing.mp4", engine=engine)


@pytest.mark.parametrize("count", [1, 4])
def test_without_a_face_it_is_told_how_much_was_looked_at(capsys, count):
    report = Report(
        file="long.mkv",
        status="undetermined",
        reason="no_face",
        message="cannot tell: no face was found",
        limits_ms=(-125, 45),
        looked_at_s=2.4 * count,
        passages=tuple(PassageReport(10.0 * number, 10.0 * number + 2.4) for number in range(count)),
    )
    print_report(report)
    told = capsys.readouterr().out.splitlines()[1]
    rest = " in 4 places; --full looks at everything" * (count > 1)
    assert " ".join(told.split()) == f"looked at {2.4 * count:.0f} s{rest}"


def test_an_engine_comes_with_its_own_model_and_threads(engine, heads, handmade):
    with pytest.raises(ConfigError, match="engine"):
        check_file(heads[0], engine=engine, model=handmade)


@pytest.mark.parametrize("every_s", [1e-300, 0.04, 0.999, -1.0, float("nan"), float("inf")])
def test_a_timeline_of_less_than_seconds_is_refused(engine, heads, every_s):
    with pytest.raises(ConfigError, match="every"):
        check_file(heads[0], engine=engine, every_s=every_s)


def test_two_faces_and_silence_are_no_speech(tmp_path, engine):
    """What all faces say together must not get around what each of them is refused for."""
    head = TalkingHead(syllables(4.0), fps=Fraction(25), side=256)

    def two_shots(number: int) -> np.ndarray:
        return (
            head(number)
            if number < 50
            else 255 - barcode(0, width=256, height=256)
            if number < 52
            else head(number)
        )

    path = write_clip(
        tmp_path / "two.mp4", seconds=4, paint=two_shots, sound=np.zeros(4 * RATE, np.float32), rate=RATE
    )
    report = check_file(path, engine=engine)
    assert len(report.tracks) == 2
    assert (report.status, report.reason) == ("undetermined", "no_speech")


def test_ten_seconds_of_face_with_half_a_second_of_sound_are_too_short(tmp_path, engine):
    sound = tmp_path / "short.wav"
    soundfile.write(sound, voice(syllables(0.6)), RATE)
    head = write_talking_head(tmp_path / "head.mp4", seconds=4)
    assert check_file(head, audio=sound, engine=engine).reason in ("too_short", "no_speech")


def test_a_head_upside_down_in_the_pixels_is_answered_as_upright_and_said(tmp_path, engine, capsys):
    loudness = syllables(6.0)
    head = TalkingHead(loudness[100:], fps=Fraction(25), side=256)
    sound = voice(loudness)[round(1.16 * RATE) :][: 4 * RATE]
    upright, turned = (
        check_file(
            write_clip(tmp_path / f"{step}.mp4", seconds=4, sound=sound, rate=RATE,
                       paint=lambda number, step=step: np.ascontiguousarray(head(number)[::step, ::step])),
            engine=engine,
        )
        for step in (1, -1)
    )  # fmt: skip
    assert turned.audio_lead_ms == pytest.approx(upright.audio_lead_ms, abs=10)
    assert [track.turned_degrees for track in upright.tracks + turned.tracks] == [0, 180]
    for report in (upright, turned):
        print_report(report)
        assert ("turned from upright by 180 degrees" in capsys.readouterr().out) == (report is turned)


def test_who_speaks_in_a_small_inset_beside_a_large_face_that_chews_is_heard(tmp_path, engine):
    """The inset is 130 of 640 pixels high."""
    loudness = syllables(7.0)
    small = TalkingHead(loudness[100:], fps=Fraction(25), side=130)
    large = TalkingHead(syllables(7.0, seed=7)[100:], fps=Fraction(25), side=560)

    def call(number: int) -> np.ndarray:
        picture = np.full((640, 1138, 3), 90, np.uint8)
        picture[80:, 40:600] = large(number)
        picture[20:150, 980:1110] = small(number)
        return picture

    sound = voice(loudness)[round(1.16 * RATE) :][: 4 * RATE]
    path = write_clip(tmp_path / "c.mp4", seconds=4, sound=sound, rate=RATE, paint=call)
    report = check_file(path, engine=engine)
    speaking = {track.box[0] > 900: track.speaking for track in report.tracks}
    assert speaking == {True: True, False: False}
    assert report.audio_lead_ms == pytest.approx(160, abs=80)


def test_joined_recordings_are_looked_at_each_by_its_own_clock(tmp_path, engine):
    data = write_talking_head(tmp_path / "a.ts", seconds=4, audio_lead_ms=160).read_bytes()
    joined = tmp_path / "joined.ts"
    joined.write_bytes(data + data)
    report = check_file(joined, engine=engine)
    assert report.starts_anew_s == pytest.approx(4.0, abs=0.2)
    assert "what follows was looked at by its own clock" in report.message
    assert report.audio_lead_ms == pytest.approx(160, abs=80)
    assert report.looked_at_s == pytest.approx(8.0, abs=0.3)


def test_an_uncalibrated_student_is_refused(tmp_path, heads):
    folder = write_student(tmp_path / "student", calibration=None)
    with pytest.raises(ModelError, match="not calibrated"):
        check_file(heads[0], model=folder, threads=1)


def test_the_progress_is_told(engine, heads):
    seen = []
    check_file(heads[0], engine=engine, progress=lambda done_s, total_s: seen.append((done_s, total_s)))
    assert [done_s for done_s, _ in seen] == [0.0, 1.0, 2.0, 3.0]
    assert all(total_s == pytest.approx(4.0, abs=0.1) for _, total_s in seen)


def test_threads_do_not_change_the_answer(engine, heads, handmade):
    one = check_file(heads[160], engine=engine)
    two = check_file(heads[160], model=handmade, threads=2)
    assert one.audio_lead_ms == pytest.approx(two.audio_lead_ms, abs=0.1)


def test_limits_may_be_named():
    """As in the documents that set them: audio may lag by the first and lead by the second number of ms."""
    named = {
        "itu-detect": (-125, 45),
        "itu-accept": (-185, 90),
        "ebu-r37": (-60, 40),
        "atsc-is191": (-45, 15),
        "film": (-83, 42),
    }
    assert set(named) == set(TOLERANCES)
    for name, (latest_ms, earliest_ms) in named.items():
        limits = parse_tolerance(name)
        assert (limits.latest_ms, limits.earliest_ms) == (latest_ms, earliest_ms)
        assert limits.contains(latest_ms)
        assert limits.contains(earliest_ms)
        assert not limits.contains(latest_ms - 1)
        assert not limits.contains(earliest_ms + 1)


def test_custom_limits():
    limits = parse_tolerance("-40,20.5")
    assert (limits.latest_ms, limits.earliest_ms) == (-40, 20.5)
    assert parse_tolerance("60,40") == parse_tolerance("ebu") == TOLERANCES["ebu-r37"]
    assert parse_tolerance("40") == parse_tolerance("-40,40")
    assert parse_tolerance("ITU-Accept") is TOLERANCES["itu-accept"]
    for bad in ("", "0", "40,-20", "a,b", "-40,20,3", "itu", "-1,nan", "0,20", "-40"):
        with pytest.raises(ConfigError, match="tolerance"):
            parse_tolerance(bad)
