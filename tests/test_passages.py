"""Long videos whose passages are known: what is found, and how much of them was looked at for it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from time import sleep

import av
import numpy as np
import pytest
from clips import write_clip
from looping import join_clips
from talking import RATE, TalkingHead, syllables, voice

from avsync_cli import check_file
from avsync_cli.check import Engine
from avsync_cli.errors import ConfigError
from avsync_cli.grid import Picture
from avsync_cli.media import open_media
from avsync_cli.passages import Chooser
from avsync_cli.scoring import Look, Stopwatch, look_at
from avsync_cli.seeking import open_places
from avsync_cli.sound import Heard, Hearing, Sound
from avsync_cli.speech import speech_likeness

PART_S = Fraction(8)


def write_part(path: Path, *, audio_lead_ms: float = 0, head: bool = True, heard: bool = True) -> Path:
    """Eight seconds of a head, or of nobody, with a voice that is early, or with silence."""
    loudness = syllables(float(PART_S) + 2)
    first = round((1 + audio_lead_ms / 1000) * RATE)
    sound = voice(loudness)[first : first + int(PART_S) * RATE] * heard
    paint = TalkingHead(loudness[100:], fps=Fraction(25), side=256)
    nobody = np.full((256, 256, 3), 90, np.uint8)
    return write_clip(
        path,
        seconds=float(PART_S),
        paint=paint if head else lambda number: nobody + np.uint8(number % 40),
        sound=sound,
        rate=RATE,
        audio_codec="pcm_s16le",
        keyframe_every=50,
        time_base=Fraction(1, 1000),
    )


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parts")
    return {
        "early": write_part(folder / "early.mkv", audio_lead_ms=160),
        "level": write_part(folder / "level.mkv"),
        "silent": write_part(folder / "silent.mkv", heard=False),
        "faceless": write_part(folder / "faceless.mkv", head=False),
    }


def join(folder: Path, parts: dict[str, Path], names: str) -> Path:
    return join_clips(folder / "long.mkv", [(parts[name], PART_S) for name in names.split()])


@pytest.fixture(scope="module")
def zero_ms(engine, parts) -> float:
    return check_file(parts["level"], engine=engine).audio_lead_ms


def look(pictures: Iterable[Picture], hearing: Hearing, engine: Engine) -> Look:
    return look_at(pictures, hearing, student=engine.student, models=engine.faces, watch=Stopwatch())


def test_a_long_file_is_answered_from_a_few_passages(tmp_path, engine, parts, zero_ms):
    report = check_file(join(tmp_path, parts, "early " * 30), engine=engine)
    assert report.duration_s == pytest.approx(240, abs=0.1)
    assert report.audio_lead_ms - zero_ms == pytest.approx(160, abs=8)
    assert 3 <= len(report.passages) <= 10
    assert report.looked_at_s == pytest.approx(2.4 * len(report.passages))
    assert report.decoded_pictures < 25 * 40, "of 6,000"
    begins = sorted(passage.start_s for passage in report.passages)
    assert begins[-1] - begins[0] > 60, "they are spread"


@pytest.mark.parametrize("first", ["silent", "faceless"])
def test_a_first_half_that_says_nothing_is_passed_over(tmp_path, engine, parts, zero_ms, first):
    report = check_file(join(tmp_path, parts, f"{first} " * 8 + "early " * 8), engine=engine)
    assert report.audio_lead_ms - zero_ms == pytest.approx(160, abs=8)
    assert all(passage.start_s >= 62 for passage in report.passages)
    assert report.decoded_pictures < 25 * 40


@pytest.mark.slow
def test_passages_keep_to_the_part_that_was_asked_for(tmp_path, engine, parts, zero_ms):
    path = join(tmp_path, parts, "level " * 8 + "early " * 8)
    early = check_file(path, engine=engine, start_s=64.0)
    level = check_file(path, engine=engine, start_s=2.0, end_s=62.0)
    assert early.audio_lead_ms - zero_ms == pytest.approx(160, abs=8)
    assert level.audio_lead_ms - zero_ms == pytest.approx(0, abs=8)
    assert min(passage.start_s for passage in early.passages) >= 64
    assert max(passage.end_s for passage in level.passages) <= 62
    few = check_file(path, engine=engine, start_s=70.0, end_s=75.0)
    assert [(passage.start_s, passage.end_s) for passage in few.passages] == [(70.0, 75.0)]
    assert few.decoded_pictures < 250
    assert few.audio_lead_ms - zero_ms == pytest.approx(160, abs=12)


@pytest.mark.slow
def test_silence_everywhere_is_no_speech_and_nobody_no_face(tmp_path, engine, parts):
    for name, reason in (("silent", "no_speech"), ("faceless", "no_face")):
        report = check_file(join(tmp_path, parts, f"{name} " * 6), engine=engine)
        assert (report.status, report.reason) == ("undetermined", reason)
        assert report.looked_at_s <= 12


def test_a_video_with_one_keyframe_is_read_on_from_there(tmp_path, engine, zero_ms):
    """Nobody is to be seen in the 16 s in which places are near the keyframe."""
    loudness = syllables(50.0)
    head = TalkingHead(loudness[100:], fps=Fraction(25), side=256)
    path = write_clip(
        tmp_path / "one.mp4",
        seconds=48,
        paint=lambda number: head(number) if number >= 400 else np.full((256, 256, 3), 40, np.uint8),
        sound=voice(loudness)[round(1.16 * RATE) :][: 48 * RATE],
        rate=RATE,
        keyframe_every=5000,
        time_base=Fraction(1, 25),
    )
    report = check_file(path, engine=engine)
    assert report.audio_lead_ms - zero_ms == pytest.approx(160, abs=8)
    assert len(report.passages) <= 10
    assert report.decoded_pictures < 2000, "each of 1,200, and those near the keyframe again"


def test_a_search_that_takes_long_is_given_up(monkeypatch, tmp_path, engine, parts):
    """As in a damaged file, where a seek may take seconds."""
    monkeypatch.setattr("avsync_cli.passages._MAX_SEARCH_S", 0.5)
    heard = []

    def hear(first_tick: int, end_tick: int) -> None:
        heard.append((first_tick, end_tick))
        sleep(0.3)

    with open_places(join(tmp_path, parts, "silent " * 10), threads=1) as places:
        chooser = Chooser(places, hear, engine.faces, 0, 2000)
        chosen = [passage for passage, pictures in chooser.passages() if list(pictures)]
    assert len(heard) == len(chosen) <= 2


def test_a_video_whose_sound_ends_early_is_looked_at_in_places(tmp_path, engine, parts):
    """Two parts with sound, of twenty: nothing is heard in any place, and the file is not read for that."""
    path = tmp_path / "short.mkv"
    with av.open(str(join(tmp_path, parts, "early " * 20))) as source, av.open(str(path), "w") as cut:
        streams = [cut.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            is_late = (
                packet.stream.type == "audio" and packet.pts is not None and packet.time_base * packet.pts > 2
            )
            if packet.dts is not None and not is_late:
                packet.stream = streams[packet.stream_index]
                cut.mux(packet)
    report = check_file(path, engine=engine)
    assert (report.status, report.reason) == ("undetermined", "no_speech")
    assert report.decoded_pictures < 25 * 40, "of 4,000"


def test_a_part_ends_with_its_last_tick(tmp_path, engine, parts):
    """As a float, 32.12 s is a little less than 803 ticks."""
    report = check_file(join(tmp_path, parts, "early " * 5), engine=engine, start_s=30.0, end_s=32.12)
    assert [(passage.start_s, passage.end_s) for passage in report.passages] == [(30.0, 32.12)]


@dataclass(frozen=True)
class NotedHearing(Heard):
    """Sound that knows which ticks were asked for."""

    asked: list[tuple[int, int]] = field(default_factory=list)

    def sound_between(self, first_tick: int, end_tick: int) -> Sound | None:
        self.asked.append((first_tick, end_tick))
        return super().sound_between(first_tick, end_tick)


@pytest.mark.parametrize("range_frames", [15, 100])
def test_a_passage_hears_all_that_its_scores_ask_for(engine, heads, range_frames):
    heard: list[tuple[int, int]] = []
    with open_places(heads[0], threads=1) as places:

        def hear(first_tick: int, end_tick: int) -> Sound | None:
            heard.append((first_tick, end_tick))
            return places.sound(first_tick, end_tick)

        chooser = Chooser(places, hear, engine.faces, 10, 70, range_frames=range_frames)
        ((passage, pictures),) = ((passage, list(pictures)) for passage, pictures in chooser.passages())
    hearing = NotedHearing(passage.sound)
    look_at(
        pictures,
        hearing,
        student=engine.student,
        models=engine.faces,
        watch=Stopwatch(),
        range_frames=range_frames,
    )
    assert hearing.asked == heard


@pytest.mark.parametrize("start_s", [64.0, 5000.0, 1e15])
def test_a_part_behind_the_end_is_refused(tmp_path, engine, parts, start_s):
    path = join(tmp_path, parts, "early " * 8)
    with pytest.raises(ConfigError, match=r"long\.mkv.* the video ends at 64\.0 s"):
        check_file(path, engine=engine, start_s=start_s)


@pytest.mark.slow
def test_full_looks_at_everything(tmp_path, engine, parts, zero_ms):
    report = check_file(join(tmp_path, parts, "early " * 5), engine=engine, full=True)
    assert report.looked_at_s == pytest.approx(40, abs=0.1)
    assert report.decoded_pictures == 1000
    assert len(report.passages) == 1
    assert report.audio_lead_ms - zero_ms == pytest.approx(160, abs=8)


@pytest.mark.slow
def test_a_face_of_a_number_is_sought_in_all_of_a_long_file(tmp_path, engine, parts, zero_ms):
    """Its passages would number it anew, and the number would mean another face in each."""
    path = join(tmp_path, parts, "early " * 5)
    report = check_file(path, engine=engine, speaker=1)
    assert report.full
    assert report.looked_at_s == pytest.approx(40, abs=0.1)
    assert report.audio_lead_ms - zero_ms == pytest.approx(160, abs=8)
    assert report.tracks == check_file(path, engine=engine, full=True).tracks


@pytest.mark.slow
def test_sound_that_is_forgotten_on_the_way_changes_nothing(monkeypatch, tmp_path, engine, parts):
    """One look that settles every second against one that has all the sound at the end."""
    monkeypatch.setattr("avsync_cli.tracks.MAX_TRACK_FRAMES", 60)
    path = join(tmp_path, parts, "early level")

    with open_media(path) as media:
        list(media.pictures())
        whole = media.sound()
    with open_media(path) as media:
        at_end = look(media.pictures(), Heard(whole), engine)
    monkeypatch.setattr("avsync_cli.scoring.MAX_TRACK_FRAMES", 60)
    monkeypatch.setattr("avsync_cli.scoring._SETTLE_TICKS", 25)
    with open_media(path) as media:
        on_the_way = look(media.pictures(), media, engine)
        kept = media.sound()
    assert len(kept.samples) < 0.7 * len(whole.samples), "some was forgotten"
    assert len(on_the_way.pieces) == len(at_end.pieces) > 5
    for one, other in zip(on_the_way.pieces, at_end.pieces, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)
        np.testing.assert_array_equal(one.loudness_db, other.loudness_db)


def test_speech_is_told_from_what_is_steady():
    seconds = np.arange(4 * RATE) / RATE
    rng = np.random.default_rng(0)
    sounds = {
        "silence": np.zeros(4 * RATE),
        "hum": 0.3 * np.sin(2 * np.pi * 50 * seconds),
        "noise": 0.1 * rng.standard_normal(4 * RATE),
        "chord": 0.1 * sum(np.sin(2 * np.pi * hz * seconds) for hz in (220, 277, 330, 440)),
        "slow swell": 0.1 * rng.standard_normal(4 * RATE) * (1 + np.sin(2 * np.pi * 0.5 * seconds)),
    }
    likeness = {name: speech_likeness(Sound(x.astype(np.float32), 0)) for name, x in sounds.items()}
    speech = [speech_likeness(Sound(voice(syllables(4.0, seed=seed)), 0)) for seed in range(4)]
    assert min(speech) > 0.3
    assert max(likeness.values()) < 0.5 * min(speech)
    assert speech_likeness(None) == 0
    assert speech_likeness(Sound(voice(syllables(4.0))[: RATE // 2], 0)) == 0
