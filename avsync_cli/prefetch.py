"""Work ahead: one thread makes what another one uses, a few things at a time."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import TypeVar

Thing = TypeVar("Thing")

_WAIT_S = 0.1  # after which the maker looks whether anybody still wants what it makes


def work_ahead(things: Iterable[Thing], *, most: int) -> Iterator[Thing]:
    """The things in their order, up to `most` of them made in a thread before they are asked for.

    An error comes where it was made. Who stops early must close the iterator, which waits for the thread.
    """
    made: Queue[tuple[Thing | None, BaseException | None]] = Queue(most)
    unwanted = threading.Event()

    def hand_over(thing: Thing | None, error: BaseException | None) -> None:
        while not unwanted.is_set():
            with suppress(Full):
                made.put((thing, error), timeout=_WAIT_S)
                return

    def make() -> None:
        error: BaseException | None = None
        try:
            for thing in things:
                hand_over(thing, None)
                if unwanted.is_set():
                    return
        except BaseException as caught:  # whatever it is, the one who asked is to have it
            error = caught
        hand_over(None, error or StopIteration())

    maker = threading.Thread(target=make, daemon=True)
    maker.start()
    try:
        while True:
            thing, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield thing  # type: ignore[misc]  # there is one where there is no error
    finally:
        unwanted.set()
        with suppress(Empty):
            while True:
                made.get_nowait()
        maker.join()
