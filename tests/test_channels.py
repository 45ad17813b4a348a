"""Channels in opposite phase are heard, at the exact time; what hums beside a voice does not hide it."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from clips import click_track, find_clicks, write_clip
from talking import RATE, TalkingHead, syllables, voice

from avsync_cli import check_file
from avsync_cli.channels import Polarity
from avsync_cli.media import open_media, read_sound_file
from avsync_cli.seeking import open_places
from avsync_cli.sound import Sound

CLICKS_S = (0.3, 0.9, 1.4, 1.9, 2.6)
SECONDS = 3.0


def noise(seed: int, level: float, *, samples: int = 16_000) -> np.ndarray:
    return level * np.random.default_rng(seed).standard_normal(samples)


def hum(level: float, *, samples: int = 16_000, rate: int = 16_000) -> np.ndarray:
    return level * np.sin(2 * np.pi * 50 * np.arange(samples) / rate)


VOICE = noise(0, 0.1)
PAIRS = {  # channels, and whether the second is to be inverted
    "in phase": ((VOICE, VOICE), False),
    "inverted": ((VOICE, -VOICE), True),
    "inverted and quieter": ((VOICE, -0.3 * VOICE), True),
    "inverted, the first is quieter": ((0.3 * VOICE, -VOICE), True),
    "inverted under the same hum in phase": ((VOICE + hum(1.0), -VOICE + hum(1.0)), True),
    "in phase under hum in opposite phase": ((VOICE + hum(1.0), VOICE - hum(1.0)), False),
    "inverted beside music of their own": ((VOICE + noise(1, 0.07), -VOICE + noise(2, 0.07)), True),
    "of their own": ((noise(1, 0.1), noise(2, 0.1)), False),
    "silent beside a voice": ((VOICE, 0 * VOICE), False),
}


@pytest.mark.parametrize("name", PAIRS)
def test_only_a_channel_of_opposite_phase_is_inverted(name):
    channels, inverted = PAIRS[name]
    polarity = Polarity()
    for part in np.array_split(np.stack(channels), 40, axis=1):
        assert polarity.update(part, 16_000).tolist() == [1, -1 if inverted else 1]


def test_what_is_inverted_in_the_middle_is_noticed_soon_and_forgotten_again():
    polarity = Polarity()
    signs = [
        polarity.update(np.stack([part, sign * part]), 16_000)[1]
        for sign in (1, -1, 1)
        for part in np.split(noise(0, 0.1, samples=6 * 16_000), 60)
    ]
    assert [signs[place] for place in (0, 59, 90, 119, 150, 179)] == [1, 1, -1, -1, 1, 1]


def write_stereo(path: Path, second: float, **options) -> Path:
    """Clicks in both channels, in the second with a sign and level of its own."""
    clicks = click_track(CLICKS_S, seconds=SECONDS, rate=48_000)
    planes = np.stack([clicks, second * clicks])
    return write_clip(path, seconds=SECONDS, sound=planes, layout="stereo", **options)


def times_of(sound: Sound) -> np.ndarray:
    return np.array(find_clicks(sound.samples, rate=16_000)) + sound.first_sample / 16_000


@pytest.mark.parametrize("second", [-1.0, -0.8])
@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "aac"), (".mkv", "flac"), (".mov", "pcm_s16le")])
def test_opposite_phase_is_heard_at_its_time(tmp_path, suffix, codec, second):
    sounds = []
    for sign in (1, -1):
        path = write_stereo(tmp_path / f"{sign}{suffix}", sign * second, audio_codec=codec)
        with open_media(path) as media:
            list(media.pictures())
            sounds.append(media.sound())
        with open_places(path) as places:
            sounds.append(places.sound(0, 75))
    for sound in sounds:
        np.testing.assert_allclose(times_of(sound), CLICKS_S, atol=0.001)
        assert np.abs(sound.samples).max() == pytest.approx(np.abs(sounds[0].samples).max(), rel=0.05)


def test_opposite_phase_in_a_separate_sound_file_is_heard(tmp_path):
    clicks = click_track(CLICKS_S, seconds=SECONDS, rate=48_000)
    soundfile.write(tmp_path / "s.wav", np.stack([clicks, -clicks], axis=1), 48_000)
    np.testing.assert_allclose(times_of(read_sound_file(tmp_path / "s.wav")), CLICKS_S, atol=0.001)


def test_a_channel_that_is_inverted_half_way_keeps_its_time(tmp_path):
    clicks = click_track(np.arange(0.25, 8, 0.5), seconds=8, rate=48_000)
    second = np.where(np.arange(len(clicks)) < len(clicks) // 2, clicks, -clicks)
    path = write_clip(tmp_path / "c.mkv", seconds=8, sound=np.stack([clicks, second]), layout="stereo",
                      audio_codec="flac")  # fmt: skip
    with open_media(path) as media:
        list(media.pictures())
        found_s = times_of(media.sound())
    expected_s = np.arange(0.25, 8, 0.5)
    heard = np.abs(found_s[:, None] - expected_s).min(axis=0) < 0.001
    assert heard[:8].all()
    assert heard[-4:].all(), "after two seconds at most"
    assert len(found_s) == heard.sum()


@pytest.fixture(scope="module")
def head() -> tuple[TalkingHead, np.ndarray]:
    """Paints a head, and its voice, which is late by 160 ms."""
    loudness = syllables(6.0)
    late = voice(loudness)[round(0.84 * RATE) :][: 4 * RATE]
    return TalkingHead(loudness[100:], fps=Fraction(25)), late


@pytest.fixture(scope="module")
def clean_ms(head, engine, tmp_path_factory) -> float:
    path = tmp_path_factory.mktemp("clean") / "c.mkv"
    write_clip(path, seconds=4, paint=head[0], sound=head[1], rate=RATE, audio_codec="flac")
    lead_ms = check_file(path, engine=engine).audio_lead_ms
    assert lead_ms == pytest.approx(-160, abs=80)
    return lead_ms


@pytest.mark.parametrize(
    "name", ["inverted", "inverted under a hum", "hum in one channel", "hum 6 dB above the voice"]
)
def test_a_voice_that_is_hard_to_get_at_is_heard(tmp_path, engine, head, clean_ms, name):
    paint, sound = head
    loud_hum = hum(1.0, samples=len(sound), rate=RATE)
    loud_hum *= 2 * np.sqrt(np.mean(sound**2) / np.mean(loud_hum**2))
    planes = {
        "inverted": (sound, -sound),
        "inverted under a hum": (sound + loud_hum, -sound + loud_hum),
        "hum in one channel": (sound, loud_hum),
        "hum 6 dB above the voice": (sound + loud_hum, sound + loud_hum),
    }[name]
    path = write_clip(tmp_path / "c.mkv", seconds=4, paint=paint, sound=np.stack(planes).astype(np.float32),
                      rate=RATE, layout="stereo", audio_codec="flac")  # fmt: skip
    assert check_file(path, engine=engine).audio_lead_ms == pytest.approx(clean_ms, abs=15)
