"""Which of several sounds of a file has a voice: each is heard at a few places."""

import math
from pathlib import Path

from avsync_cli.container import main_audio
from avsync_cli.decoder import open_container
from avsync_cli.errors import MediaError
from avsync_cli.passages import spread_places
from avsync_cli.seeking import open_places
from avsync_cli.spec import VIDEO_FPS
from avsync_cli.speech import VOICE_LIKENESS, speech_likeness
from avsync_cli.timing import first_tick_from

_PLACE_TICKS = 6 * VIDEO_FPS  # of sound that is heard at a place
_PLACES = 6  # at which a sound is heard, until a voice is found


def find_voices(path: Path, *, start_s: float = 0.0, end_s: float | None = None) -> list[float]:
    """How much each sound of a file is like speech within [start_s, end_s), 0 to 1. Raises MediaError."""
    with open_container(path) as container:
        count = len(container.streams.audio)
        duration_s = None if container.duration is None else container.duration / 1_000_000
        known = [stream.codec_context is not None for stream in container.streams.audio]
    last_s = min(*(math.inf if each is None else each for each in (end_s, duration_s)))
    return [_hear(path, number, start_s, last_s) if known[number] else 0.0 for number in range(count)]


def choose_voice(path: Path, *, start_s: float = 0.0, end_s: float | None = None) -> int | None:
    """The number of the sound to check: the usual one where it has a voice, else that most like speech.

    None, for the usual one, where there is only one or the file cannot be opened twice.
    """
    if not path.is_file():
        return None
    likeness = find_voices(path, start_s=start_s, end_s=end_s)
    with open_container(path) as container:
        usual = main_audio(container)
        number = None if usual is None else list(container.streams.audio).index(usual)
    if len(likeness) < 2 or number is None or likeness[number] >= VOICE_LIKENESS:
        return number
    best = max(range(len(likeness)), key=lambda each: likeness[each])
    return best if likeness[best] >= VOICE_LIKENESS else number


def _hear(path: Path, number: int, start_s: float, last_s: float) -> float:
    """The greatest likeness to speech of sound `number` at a few places; the first with a voice is enough.

    0 where it cannot be read: a sound that was not asked about is no reason to refuse the file.
    """
    best = 0.0
    try:
        with open_places(path, threads=1, audio_stream=number) as places:
            if last_s == math.inf:
                last_s = places.measure_s() or 0.0
            first, last = first_tick_from(start_s), first_tick_from(last_s) - _PLACE_TICKS
            for tick in spread_places(first, max(first, last), count=_PLACES):
                best = max(best, speech_likeness(places.sound(tick, tick + _PLACE_TICKS)))
                if best >= 2 * VOICE_LIKENESS:
                    break
    except MediaError:
        return 0.0
    return best
