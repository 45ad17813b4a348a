"""Who draws a step's pairs: the process that trains, or workers beside it that are some micro-batches ahead.

What a micro-batch holds depends on its step and number alone. So it is the same by whomever it is drawn, and
a run that goes on, with other workers or none, sees what it would have seen.
"""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from avsync_cli.errors import AvsyncError, ConfigError
from training.data.pairs import PairBatch
from training.recipe import SpeedConfig

Place = tuple[int, int]  # a step, and the number of a micro-batch
Draw = Callable[[int, int], PairBatch]  # may be sent to another process


class Feed(Protocol):
    """Gives the pairs of micro-batches."""

    def batch(self, step: int, part: int) -> PairBatch: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class OwnFeed:
    """Draws in the process itself, when it is asked."""

    draw: Draw

    def batch(self, step: int, part: int) -> PairBatch:
        return self.draw(step, part)

    def close(self) -> None:
        pass


class WorkerFeed:
    """Has workers draw what comes next: the process' parts of step after step, up to `last_step`.

    Asked for another micro-batch than the next, it starts anew with that one.
    """

    def __init__(
        self, draw: Draw, speed: SpeedConfig, *, parts: range, last_step: int, device: torch.device
    ) -> None:
        self._draw, self._speed, self._parts, self._last_step = draw, speed, parts, last_step
        self._pins = device.type == "cuda"
        self._ahead: Iterator[tuple[Place, PairBatch | str]] | None = None
        self._next: Place | None = None

    def batch(self, step: int, part: int) -> PairBatch:
        """Raises ConfigError where a worker cannot draw or has ended."""
        if self._ahead is None or (step, part) != self._next:
            self._ahead = self._start((step, part))
        try:
            place, drawn = next(self._ahead)
        except RuntimeError as error:  # what torch raises where a worker was ended
            raise ConfigError(f"a worker that draws pairs has ended: {str(error).splitlines()[0]}") from error
        if isinstance(drawn, str):
            raise ConfigError(drawn)
        if place != (step, part):
            raise AssertionError(f"asked for micro-batch {(step, part)}, got {place}")
        self._next = self._after(place)
        return drawn

    def close(self) -> None:
        """End the workers."""
        self._ahead = self._next = None

    def _start(self, first: Place) -> Iterator[tuple[Place, PairBatch | str]]:
        loader = DataLoader(
            _Drawn(self._draw),
            sampler=_Places(first, self._parts, self._last_step),
            batch_size=None,
            num_workers=self._speed.workers,
            prefetch_factor=self._speed.prefetch,
            collate_fn=_as_it_is,
            pin_memory=self._pins,
            worker_init_fn=_begin_worker,
            multiprocessing_context="spawn",
        )
        return iter(loader)

    def _after(self, place: Place) -> Place:
        step, part = place
        later = part + self._parts.step
        return (step, later) if later in self._parts else (step + 1, self._parts.start)


@dataclass(frozen=True)
class _Places:
    """The order in which micro-batches are asked for."""

    first: Place
    parts: range
    last_step: int

    def __iter__(self) -> Iterator[Place]:
        for step in range(self.first[0], self.last_step):
            for part in self.parts:
                if (step, part) >= self.first:
                    yield step, part

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Drawn(Dataset[tuple[Place, PairBatch | str]]):
    """Micro-batches by their places, or what keeps them from being drawn, in one line."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw

    def __getitem__(self, place: Place) -> tuple[Place, PairBatch | str]:
        try:
            return place, self._draw(*place)
        except AvsyncError as error:
            return place, str(error)


def is_other_worker() -> bool:
    """Whether this is a worker that leaves it to the first to compare the hashes of shards."""
    worker = get_worker_info()
    return worker is not None and worker.id > 0


def make_feed(
    draw: Draw, speed: SpeedConfig, *, parts: range, last_step: int, device: torch.device
) -> OwnFeed | WorkerFeed:
    """Who draws, as the configuration says."""
    if not speed.workers:
        return OwnFeed(draw)
    return WorkerFeed(draw, speed, parts=parts, last_step=last_step, device=device)


def _as_it_is(drawn: Any) -> Any:  # noqa: ANN401 - what a DataLoader's type wants
    return drawn


def _begin_worker(_number: int) -> None:
    """Ctrl-C is for the process that trains: it finishes its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
