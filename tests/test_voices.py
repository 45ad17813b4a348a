"""Several sounds in one file: which of them has a voice."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from talking import RATE, TalkingHead, syllables, voice

from avsync_cli import ConfigError, check_file
from avsync_cli.options import CheckOptions
from avsync_cli.voices import choose_voice, find_voices

SECONDS = 4
LOUDNESS = syllables(6.0)
VOICE = voice(LOUDNESS)[round(1.16 * RATE) :][: SECONDS * RATE]
SILENCE = np.zeros(SECONDS * RATE, np.float32)
TIMES_S = np.arange(SECONDS * RATE) / RATE
CHORD = (0.05 * sum(np.sin(2 * np.pi * hz * TIMES_S) for hz in (220, 277, 330))).astype(np.float32)


def write_sounds(path: Path, *sounds: np.ndarray, marked: int = 0) -> Path:
    """A head that talks with `VOICE`, 160 ms early, and several sounds, of which one is the default."""
    head = TalkingHead(LOUDNESS[100:], fps=Fraction(25), side=192)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width = video.height = 192
        video.pix_fmt = "yuv420p"
        audios = [container.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in sounds]
        for number, stream in enumerate(audios):
            stream.disposition = (
                av.stream.Disposition.default if number == marked else av.stream.Disposition(0)
            )
        for second in range(SECONDS):
            for number in range(25 * second, 25 * second + 25):
                frame = av.VideoFrame.from_ndarray(head(number), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(video.encode(frame))
            for stream, sound in zip(audios, sounds, strict=True):
                part = (sound[second * RATE : (second + 1) * RATE] * 32767).astype(np.int16)[None]
                block = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
                block.sample_rate, block.pts, block.time_base = RATE, second * RATE, Fraction(1, RATE)
                container.mux(stream.encode(block))
        for stream in (video, *audios):
            container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def silent_first(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    return write_sounds(folder / "c.mkv", SILENCE, CHORD, VOICE)


def test_a_silent_default_says_which_other_sound_has_a_voice(silent_first, engine):
    report = check_file(silent_first, engine=engine)
    assert (report.reason, report.audio_stream, report.other_voices) == ("no_speech", 0, (2,))
    assert report.message.endswith("audio stream 2 has a voice: --audio-stream 2")


def test_auto_takes_the_sound_with_a_voice(silent_first, engine):
    report = check_file(silent_first, engine=engine, audio_stream="auto")
    assert (report.audio_stream, report.other_voices) == (2, ())
    assert report.audio_lead_ms == pytest.approx(160, abs=80)


def test_auto_keeps_the_default_where_that_has_a_voice(tmp_path, silent_first):
    assert [each > 0.1 for each in find_voices(silent_first)] == [False, False, True]
    both = write_sounds(tmp_path / "c.mkv", VOICE, VOICE, 0.5 * VOICE, marked=1)
    assert choose_voice(both) == 1
    none = write_sounds(tmp_path / "n.mkv", SILENCE, CHORD, marked=1)
    assert choose_voice(none) == 1


@pytest.mark.parametrize("value", ["-1", "first", "1.5", "", -2])
def test_what_names_no_sound_is_refused(value):
    with pytest.raises(ConfigError, match="audio stream"):
        CheckOptions(audio_stream=value)
