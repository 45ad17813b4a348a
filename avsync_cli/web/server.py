"""`avsync web` from its start to its end: nothing of it is left then."""

import os
import socket
import sys
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Timer
from types import FrameType
from typing import TYPE_CHECKING

from avsync_cli.batch.worker import Settings
from avsync_cli.contract import identify_student
from avsync_cli.errors import ConfigError
from avsync_cli.machine import MB, count_cores
from avsync_cli.options import CheckOptions
from avsync_cli.precision import choose_precision
from avsync_cli.report import ModelId
from avsync_cli.spec import Wanted
from avsync_cli.stops import hearing_stops
from avsync_cli.web.options import WebOptions

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

_HOST = "127.0.0.1"
_END_S = 2  # for answers under way when it is to end
_BROWSE_S = 0.3  # for the server to listen


def serve_page(
    web: WebOptions,
    options: CheckOptions,
    *,
    model: Path | None = None,
    precision: Wanted = "auto",
    tell: Callable[[str], None],
) -> None:
    """Serve until an interrupt or SIGTERM comes. `tell` is given the address, which lets in one browser.

    Raises ConfigError, ModelError, ScanError or WriteError.
    """
    _require_web()
    from avsync_cli.web.app import Site, make_app
    from avsync_cli.web.desk import Desk
    from avsync_cli.web.door import Door, guard
    from avsync_cli.web.folder import open_folder
    from avsync_cli.web.storage import erase, make_folder

    root = None if web.root is None else open_folder(web.root)
    chosen = choose_precision(precision, model)
    identity = ModelId(*identify_student(model, precision=chosen), chosen)
    settings = _limit(web, options, model, identity)
    with listen(web.port) as listener, _stopping() as stop:
        folder = make_folder()
        try:
            with Desk(folder, settings, identity, linger_s=web.linger_s) as desk:
                door = Door(listener.getsockname()[1])
                app = make_app(Site(desk, root, web.max_upload_mb * MB, web.linger_s))
                server = make_server(guard(app, door))
                stop.append(lambda: setattr(server, "should_exit", True))
                desk.fail = stop[0]
                tell(door.address)
                if web.browse and _has_desktop():
                    Timer(_BROWSE_S, webbrowser.open, [door.address]).start()
                server.run(sockets=[listener])
        finally:
            erase(folder)
    if desk.failure is not None:
        raise desk.failure


def make_server(app: "ASGIApp") -> "uvicorn.Server":
    """What speaks HTTP; it prints nothing."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=_END_S,
    )
    return uvicorn.Server(config)


def _limit(web: WebOptions, options: CheckOptions, model: Path | None, identity: ModelId) -> Settings:
    """What the worker is told. One core is left to the page and whatever else the machine is used for."""
    from avsync_cli.web.work import load_work

    folder = None if model is None else str(model.resolve())
    threads = max(1, count_cores() - 1)
    return Settings(
        load=partial(load_work, folder, options, identity.precision, threads),
        tolerance=options.limits,
        timeout_s=web.timeout_s,
        memory_bytes=web.memory_mb * MB,
        watched=True,
    )


def _has_desktop() -> bool:
    """Whether there is a browser but those of a terminal, which would take this one."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _require_web() -> None:
    """Raises ConfigError where the extra is missing."""
    from avsync_cli.plots import require_matplotlib

    need = "pip install 'avsync-cli[web]'"
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401

        require_matplotlib()
    except (ImportError, ConfigError) as error:
        raise ConfigError(f"the page needs the extra `web`: {need}") from error


@contextmanager
def listen(port: int) -> Iterator[socket.socket]:
    """On this machine alone. Raises ConfigError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_HOST, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(f"--port {port}: {getattr(error, 'strerror', None) or error}") from error
    with listener:
        yield listener


@contextmanager
def _stopping() -> Iterator[list[Callable[[], None]]]:
    """What is to be done at an interrupt; before anything is, one raises KeyboardInterrupt."""
    stop: list[Callable[[], None]] = []

    def note(number: int, frame: FrameType | None) -> None:
        del number, frame
        if not stop:
            raise KeyboardInterrupt
        for each in stop:
            each()

    with hearing_stops(note):
        yield stop
