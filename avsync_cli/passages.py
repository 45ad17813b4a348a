"""Where to look in a long video: short passages spread over it, those with speech and a face first."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from time import perf_counter

from avsync_cli.faces import FaceModels
from avsync_cli.grid import Picture
from avsync_cli.scoring import sound_margin
from avsync_cli.seeking import Places
from avsync_cli.sound import Sound, cut_sound
from avsync_cli.spec import PASSAGE_TICKS, RANGE_FRAMES, VIDEO_FPS, WHOLE_S
from avsync_cli.speech import VOICE_LIKENESS, speech_likeness

MAX_PLACES = 32  # at which the sound is heard, and the first picture searched for a face
_PLACES_BETWEEN = 4  # tried in a stretch that is to be looked at too
_HEARD_AT_ONCE = 8  # places, of which the likeliest is looked at first
_NEAR_TICKS = 20  # on either side of a passage, whose sound may still be that of its mouth
_MAX_OTHERS = 4  # looked at all the same: the first picture may have hidden the face, or music the voice
_MAX_RUN_UP_TICKS = 12 * VIDEO_FPS  # pictures that are only decoded, from a keyframe to a place
_MAX_FAR_TICKS = 300 * VIDEO_FPS  # in all, for places that are further from a keyframe
_MAX_SEARCH_S = 20.0  # for keyframes and sound; without damage a place takes hundredths of a second


@dataclass(frozen=True)
class Passage:
    """The ticks [first_tick, end_tick), the sound around them, and how much that is like speech."""

    first_tick: int
    end_tick: int
    sound: Sound | None
    likeness: float
    has_face: bool = True  # in its first picture


@dataclass
class Chooser:
    """Chooses passages of the ticks [first_tick, end_tick) of a file, one after the other.

    What is no longer than `WHOLE_S` is one passage. A file in which one cannot jump has none.
    """

    places: Places
    hear: Callable[[int, int], Sound | None]  # the sound of the ticks from the first to before the second
    models: FaceModels
    first_tick: int
    end_tick: int
    range_frames: int = RANGE_FRAMES
    most_places: int = MAX_PLACES
    _taken: list[Passage] = field(default_factory=list)
    _far: list[tuple[int, int]] = field(default_factory=list)  # places and their keyframes, as ticks
    _searched_s: float = 0.0

    def passages(self) -> Iterator[tuple[Passage, Iterator[Picture]]]:
        """Passages with speech whose first picture has a face, with their pictures; then the others.

        The pictures of one must be read before the next is asked for.
        """
        if self.end_tick - self.first_tick <= WHOLE_S * VIDEO_FPS:
            if self.places.approach(self.first_tick) is not None:
                whole = self._hear_ticks(self.first_tick, self.end_tick)
                yield whole, self._read(whole)
            return
        others: list[Passage] = []
        places = spread_places(self.first_tick, self.end_tick - PASSAGE_TICKS, count=self.most_places)
        while batch := list(islice(places, _HEARD_AT_ONCE)):
            heard = [passage for tick in batch if (passage := self._hear(tick)) is not None]
            for passage in sorted(heard, key=lambda each: -each.likeness):
                pictures = self._read_with_face(passage)
                if pictures is not None:
                    yield passage, pictures
                else:
                    others.append(passage)
        yield from self._far_passages()
        for passage in sorted(others, key=lambda each: -each.likeness)[:_MAX_OTHERS]:
            yield replace(passage, has_face=False), self._read(passage)

    def find_between(self, first_tick: int, end_tick: int) -> tuple[Passage, Iterator[Picture]] | None:
        """A passage with speech and a face within [first_tick, end_tick), near the middle if it can be.

        None where there is none in a few places.
        """
        first_tick, end_tick = max(first_tick, self.first_tick), min(end_tick, self.end_tick)
        last_tick = end_tick - PASSAGE_TICKS
        if last_tick < first_tick:
            return None
        for tick in spread_places(first_tick, last_tick, count=_PLACES_BETWEEN):
            passage = self._hear(tick, earliest=first_tick)
            pictures = None if passage is None else self._read_with_face(passage)
            if passage is not None and pictures is not None:
                return passage, pictures
        return None

    def _read_with_face(self, passage: Passage) -> Iterator[Picture] | None:
        """The pictures of a passage; None where it is not like speech, or its first picture has no face."""
        if passage.likeness < VOICE_LIKENESS:
            return None
        pictures = self._read(passage)
        first = next(pictures, None)
        if first is None or not self.models.detect(first.rgb, tiles=True):
            return None
        return chain([first], pictures)

    def _far_passages(self) -> Iterator[tuple[Passage, Iterator[Picture]]]:
        """Passages with speech and a face far from any keyframe, in the order of the file.

        Those that follow the same keyframe are read in one go, so that nothing is decoded twice.
        """
        budget, position = _MAX_FAR_TICKS, -1
        for tick, key_tick in sorted(self._far):
            if not self._is_free(tick):
                continue
            passage = self._hear_ticks(tick, tick + PASSAGE_TICKS)
            if passage.likeness < VOICE_LIKENESS:
                continue
            begin = max(position, key_tick)
            if passage.end_tick - begin > budget:
                return
            if key_tick > position:
                self.places.approach(tick)
            budget, position = budget - (passage.end_tick - begin), passage.end_tick
            self._taken.append(passage)
            pictures = self.places.pictures(passage.first_tick, passage.end_tick)
            first = next(pictures, None)
            if first is not None and self.models.detect(first.rgb, tiles=True):
                yield passage, chain([first], pictures)
            else:
                position = passage.first_tick

    def _hear(self, tick: int, *, earliest: int = 0) -> Passage | None:
        """The passage at a place, from the keyframe before it if that is not too early; None where it is far
        from there or taken.

        In a damaged file a single place may take seconds to find: after many, no more is searched for.
        """
        if self._searched_s > _MAX_SEARCH_S:
            return None
        begin = perf_counter()
        try:
            return self._hear_from_key(tick, earliest)
        finally:
            self._searched_s += perf_counter() - begin

    def _hear_from_key(self, tick: int, earliest: int) -> Passage | None:
        key_tick = self.places.approach(tick)
        if key_tick is None:
            return None
        first = key_tick if key_tick >= earliest and self._is_free(key_tick) else tick
        if not self._is_free(first) or first < key_tick:
            return None
        if first - key_tick > _MAX_RUN_UP_TICKS:
            self._far.append((first, key_tick))
            return None
        passage = self._hear_ticks(first, first + PASSAGE_TICKS)
        self._taken.append(passage)
        return passage

    def _hear_ticks(self, first_tick: int, end_tick: int) -> Passage:
        margin = sound_margin(self.range_frames)
        sound = self.hear(first_tick - margin, end_tick + margin)
        near = None if sound is None else cut_sound(sound, first_tick - _NEAR_TICKS, end_tick + _NEAR_TICKS)
        return Passage(first_tick, end_tick, sound, speech_likeness(near))

    def _is_free(self, tick: int) -> bool:
        inside = self.first_tick <= tick <= max(self.first_tick, self.end_tick - PASSAGE_TICKS)
        return inside and all(abs(tick - passage.first_tick) >= PASSAGE_TICKS for passage in self._taken)

    def _read(self, passage: Passage) -> Iterator[Picture]:
        self.places.approach(passage.first_tick)
        return self.places.pictures(passage.first_tick, passage.end_tick)


def spread_places(first_tick: int, last_tick: int, *, count: int = MAX_PLACES) -> Iterator[int]:
    """Ticks of [first_tick, last_tick] in an order in which any number of them is spread over the whole.

    The radical inverse of van der Corput: the middle, the quarters, the eighths between them, and so on.
    """
    count = max(1, min(count, (last_tick - first_tick) // PASSAGE_TICKS))
    for number in range(1, count + 1):
        part = sum((number >> bit & 1) / 2 ** (bit + 1) for bit in range(number.bit_length()))
        yield first_tick + math.floor(part * (last_tick - first_tick))
