"""The whole path on talking heads whose offset is known: decoding, faces, windows, scan, report."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import soundfile
from clips import barcode, write_clip
from students import write_student
from talking import RATE, TalkingHead, syllables, voice, write_talking_head

from avsync_cli import ConfigError, MediaError, ModelError, check_file
from avsync_cli.check import Engine, parse_tolerance
from avsync_cli.crops import crop_face
from avsync_cli.display import print_report
from avsync_cli.media import open_media
from avsync_cli.pictures import Picture
from avsync_cli.report import PassageReport, Report
from avsync_cli.spec import FACE_CROP_DEFINITION, TOLERANCES
from avsync_cli.tracks import track_faces

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


def test_an_offset_beyond_the_range_is_refused_not_clipped(engine, heads):
    report = check_file(heads[600], engine=engine)
    assert report.status == "undetermined"
    assert report.reason == "beyond_range"
    assert report.audio_lead_ms is None


@pytest.mark.slow
@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(50), Fraction(60)])
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


def test_a_cut_ends_a_track(tmp_path, engine):
    """Two shots of the same head with bars between them: two faces, none of them across the cut."""
    loudness = syllables(6.0)
    head = TalkingHead(loudness, fps=Fraction(25), side=256)
    bars = barcode(0x5A5, width=256, height=256)

    def shot(number: int) -> np.ndarray:
        return bars if 40 <= number < 50 else head(number)

    path = write_clip(tmp_path / "cut.mp4", seconds=4, paint=shot)
    with open_media(path) as media:
        tracks = list(track_faces(media.pictures(), engine.faces))
    assert [(track.first_tick, len(track.crops)) for track in tracks] == [(0, 40), (50, 50)]
    assert tracks[0].face != tracks[1].face


def test_the_crop_is_upright_and_holds_the_mouth(tmp_path, engine):
    """A turned and enlarged picture gives the same crop: scale and rotation are taken out."""
    import cv2

    head = TalkingHead(np.ones(100, np.float32) * 0.5, fps=Fraction(25), side=256)
    turn = cv2.getRotationMatrix2D((128, 128), 20, 0.9)
    turned = [cv2.warpAffine(head(0), turn, (256, 256), borderMode=cv2.BORDER_REPLICATE)] * 10
    crops = []
    for pictures in ([head(0)] * 10, turned):
        path = write_clip(tmp_path / "c.mp4", seconds=0.4, paint=lambda k, shown=pictures: shown[k])
        with open_media(path) as media:
            crops.append(next(track_faces(media.pictures(), engine.faces)).crops[5].astype(float))
    assert crops[0].shape == (48, 96)
    assert np.corrcoef(crops[0].ravel(), crops[1].ravel())[0, 1] > 0.95


def test_faces_are_cut_as_for_training(engine, heads):
    """The boxes of each picture's own detection, and not what only training sees."""
    from training.facecrops import crop_faces

    with open_media(heads[0]) as media:
        expected = crop_faces(media.pictures(end_s=1.4), engine.faces)
    with open_media(heads[0]) as media:
        (track,) = track_faces(media.pictures(end_s=1.4), engine.faces, crop=FACE_CROP_DEFINITION)
    assert track.crops.shape == (35, 48, 96, 3)
    assert (track.first_tick, len(track.lips)) == (expected.first_tick, 35)
    np.testing.assert_array_equal(track.crops, expected.crops)


def test_a_face_too_small_for_the_detector_is_cut_where_the_mesh_is(engine):
    """Found in a tile of the picture at first, then only followed."""
    head = TalkingHead(syllables(4.0), fps=Fraction(25), side=200)
    rgb = np.full((720, 1280, 3), 128, np.uint8)
    rgb[300:500, 500:700] = head(0)
    assert not engine.faces.detect(rgb)
    pictures = [Picture(tick, rgb, 1.0) for tick in range(6)]
    (track,) = track_faces(pictures, engine.faces, crop=FACE_CROP_DEFINITION)
    assert track.crops.shape == (6, 48, 96, 3)
    np.testing.assert_array_equal(track.crops[5], crop_face(rgb, track.boxes[5]))
    assert (track.boxes[5] > [500, 300, 500, 300]).all()
    assert (track.boxes[5] < [700, 500, 700, 500]).all()


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
    rest = " in 4 passages; --full looks at everything" * (count > 1)
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


def test_long_tracks_go_on_in_pieces(tmp_path, engine, heads, monkeypatch):
    """Pieces share the face and follow each other; a face lost just after one is no crash."""
    monkeypatch.setattr("avsync_cli.tracks.MAX_TRACK_FRAMES", 20)
    with open_media(heads[0]) as media:
        pieces = list(track_faces(media.pictures(), engine.faces))
    assert [(p.face, p.first_tick, len(p.crops)) for p in pieces] == [(0, 20 * k, 20) for k in range(5)]
    head = TalkingHead(syllables(4.0), fps=Fraction(25), side=256)
    bars = barcode(0x5A5, width=256, height=256)
    dark = (head(0) * 0.12).astype(np.uint8)  # so little changes that it is no cut

    def vanishing(number: int) -> np.ndarray:
        return dark if number < 20 else (bars * 0.12).astype(np.uint8) if number < 22 else dark

    path = write_clip(tmp_path / "gone.mp4", seconds=2, paint=vanishing)
    with open_media(path) as media:
        list(track_faces(media.pictures(), engine.faces))


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


def test_an_engine_is_a_plain_value(engine):
    assert replace(engine, threads=2) == Engine(engine.student, engine.faces, 2)


@pytest.mark.parametrize("name", list(TOLERANCES))
def test_presets(name):
    assert parse_tolerance(name) is TOLERANCES[name]


def test_custom_limits():
    limits = parse_tolerance("-40,20.5")
    assert (limits.latest_ms, limits.earliest_ms) == (-40, 20.5)
    for bad in ("", "40", "40,-20", "a,b", "-40,20,3", "itu", "-1,nan"):
        with pytest.raises(ConfigError, match="tolerance"):
            parse_tolerance(bad)
