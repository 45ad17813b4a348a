"""All files of the page, and the thread that has them checked and mended, one after the other."""

import os
import secrets
from collections import deque
from collections.abc import Callable
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Self

from avsync_cli.batch.records import Item
from avsync_cli.batch.worker import Settings
from avsync_cli.batch.workers import LocalCrew
from avsync_cli.report import ModelId
from avsync_cli.web.entries import Entry
from avsync_cli.web.storage import Refusal, erase, link_video, place_video
from avsync_cli.web.tabs import Tabs
from avsync_cli.web.work import Task

MOST_FILES = 100
_LONGEST_NAME = 200  # characters
_LOOK_S = 0.1  # between two looks at what is in work
_REST_S = 0.5  # and at what is not
_ERASE_S = 15.0  # that whoever removes a file waits at most


class Desk:
    """A context: its thread works within it. What goes wrong there is `failure`, told by `fail`.

    All methods may be called from any thread.
    """

    def __init__(self, folder: Path, settings: Settings, model: ModelId, *, linger_s: float) -> None:
        self._folder, self._settings, self._model = folder, settings, model
        self._entries: dict[str, Entry] = {}
        self._queue: deque[tuple[str, bool]] = deque()  # keys, and whether to mend
        self._in_work: dict[Task, Entry] = {}
        self._leaving: list[Entry] = []
        self._shares: dict[str, float | None] = {}
        self._tabs = Tabs(linger_s)
        self._lock, self._wake, self._stop = Lock(), Event(), Event()
        self._thread = Thread(target=self._run, daemon=True)
        self.failure: BaseException | None = None
        self.fail: Callable[[], object] = lambda: None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join()

    def expect(self, name: str, size: int, tab: str) -> Entry:
        """A file that `tab` is about to send. Raises Refusal."""
        return self._add(_short_name(name), size, tab=tab)

    def borrow(self, item: Item) -> Entry:
        """A video of this machine, of which no copy is made. Raises Refusal."""
        entry = self._add(item.file, item.size or 0, real=Path(item.path))
        try:
            link_video(entry.path, Path(item.path))
        except Refusal:
            self.remove(entry.key)
            raise
        self.enqueue(entry.key)
        return entry

    def begin_upload(self, key: str) -> Entry:
        """Raises Refusal where none is expected."""
        with self._lock:
            entry = self._find(key)
            if entry.state != "expected":
                raise Refusal(409, "was sent already")
            entry.state = "uploading"
            return entry

    def count(self, entry: Entry, received: int) -> None:
        """Raises Refusal where the file is no longer wanted."""
        if entry.is_removed:
            raise Refusal(410, "was removed")
        entry.received = received

    def refuse(self, entry: Entry, words: str) -> None:
        """Keep no more of a file than why."""
        with self._lock:
            entry.state, entry.words = "refused", words
        erase(entry.folder)

    def enqueue(self, key: str) -> None:
        """Have a file checked that is whole now. Raises Refusal."""
        with self._lock:
            entry = self._find(key)
            entry.state, entry.size = "waiting", entry.received or entry.size
            self._queue.append((key, False))
        self._wake.set()

    def mend(self, key: str) -> None:
        """Have a copy in sync written. Raises Refusal."""
        with self._lock:
            entry = self._find(key)
            if not entry.may_be_mended:
                raise Refusal(409, "there is nothing to mend")
            entry.mending, entry.words = "waiting", ""
            self._queue.append((key, True))
        self._wake.set()

    def find(self, key: str) -> Entry:
        """Raises Refusal."""
        with self._lock:
            return self._find(key)

    def remove(self, *keys: str) -> None:
        """Forget files, end the work on them, and erase all that is kept of them."""
        with self._lock:
            leaving = [entry for key in keys if (entry := self._entries.pop(key, None)) is not None]
            for entry in leaving:
                entry.is_removed = True
            self._leaving += leaving
        self._wake.set()
        for entry in leaving:
            entry.erased.wait(_ERASE_S)

    def hear(self, tab: str) -> None:
        with self._lock:
            self._tabs.hear(tab)

    def leave(self, tab: str) -> None:
        """A tab goes: what it has not sent whole will never be."""
        with self._lock:
            self._tabs.leave(tab)
            broken = [key for key, each in self._entries.items() if each.tab == tab and not each.is_whole]
        self.remove(*broken)

    def to_json(self) -> list[dict[str, Any]]:
        with self._lock:
            return [entry.to_json(self._shares.get(key)) for key, entry in self._entries.items()]

    def _find(self, key: str) -> Entry:
        entry = self._entries.get(key)
        if entry is None:
            raise Refusal(404, "is not in the list any more")
        return entry

    def _add(self, name: str, size: int, *, tab: str = "", real: Path | None = None) -> Entry:
        key = secrets.token_hex(8)
        folder = self._folder / key
        entry = Entry(key, name, folder, place_video(folder, name), size, tab, real)
        with self._lock:
            if real is not None and any(other.real == real for other in self._entries.values()):
                raise Refusal(409, "is in the list already")
            if len(self._entries) >= MOST_FILES:
                raise Refusal(409, f"{MOST_FILES} files are in the list: remove some")
            try:
                folder.mkdir(mode=0o700)
            except OSError as error:
                raise Refusal(507, f"cannot be kept: {error.strerror or error}") from error
            self._entries[key] = entry
        return entry

    def _run(self) -> None:
        try:
            with LocalCrew(self._settings, jobs=1) as crew:
                while not self._stop.is_set():
                    self._turn(crew)
        except BaseException as error:  # the main thread raises it
            self.failure = error
        for entry in self._leaving:
            erase(entry.folder)
            entry.erased.set()
        if self.failure is not None:
            self.fail()

    def _turn(self, crew: LocalCrew) -> None:
        """Everything once: what leaves, what comes, what is done."""
        with self._lock:
            gone = list(self._entries) if self._tabs.is_over() else []
        if gone:
            Thread(target=self.remove, args=gone, daemon=True).start()  # which waits for this one
        self._erase(crew)
        self._hand_out(crew)
        if not crew.busy:
            self._wake.wait(_REST_S)
            self._wake.clear()
            return
        for item, answer in crew.collect(_LOOK_S):
            if isinstance(item, Task) and (entry := self._in_work.pop(item, None)) is not None:
                with self._lock:
                    self._shares.pop(entry.key, None)
                    entry.take(answer, self._model, mend=item.mend)
        for task, entry in self._in_work.items():
            with self._lock:
                self._shares[entry.key] = crew.share_of(task)

    def _erase(self, crew: LocalCrew) -> None:
        with self._lock:
            leaving, self._leaving = self._leaving, []
            for entry in leaving:
                self._shares.pop(entry.key, None)
        for entry in leaving:
            for task in [task for task, other in self._in_work.items() if other is entry]:
                crew.give_up(task)
                del self._in_work[task]
            erase(entry.folder)
            entry.erased.set()

    def _hand_out(self, crew: LocalCrew) -> None:
        while crew.room > 0 and self._queue:
            with self._lock:
                key, mend = self._queue.popleft()
                entry = self._entries.get(key)
            if entry is None:
                continue
            is_there = entry.is_where_it_was()  # asks a disk that may be slow: the page is answered meanwhile
            with self._lock:
                if entry.is_removed:
                    continue
                if not is_there:
                    entry.miss(mend=mend)
                    continue
                if mend:
                    entry.mending = "working"
                else:
                    entry.state = "checking"
                task = entry.task(mend=mend)
                self._in_work[task] = entry
            crew.submit(task)


def _short_name(name: str) -> str:
    """The last part of a name, which is shown and never opened."""
    name = name.replace("\\", "/").rpartition("/")[2].strip() or "video"
    stem, suffix = os.path.splitext(name)
    return name if len(name) <= _LONGEST_NAME else f"{stem[:_LONGEST_NAME]}…{suffix[:20]}"
