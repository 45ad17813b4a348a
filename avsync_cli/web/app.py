"""What the page asks for, and the answers: JSON for lists, files for reports and copies.

| | |
|---|---|
| `GET /` | the page, with `/page.css` and `/page.js` |
| `GET /api/files?tab=T` | all files; the tab is known to be open |
| `POST /api/files?name=N&size=S&tab=T` | a file is about to be sent: its key |
| `PUT /api/files/KEY` | its bytes |
| `DELETE /api/files/KEY` | it is erased, or was before: two tabs may ask for it |
| `POST /api/files/KEY/mend` | have a copy in sync written |
| `GET /files/KEY/report`, `/files/KEY/copy` | the page of its check, and that copy |
| `GET /api/folder`, `POST /api/folder/KEY` | the videos of the folder, and have one checked |
| `POST /api/leave?tab=T` | the tab goes |
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from avsync_cli import __version__
from avsync_cli.batch.sources import VIDEO_SUFFIXES
from avsync_cli.errors import complain
from avsync_cli.web.desk import Desk
from avsync_cli.web.folder import Folder, find_video, list_videos
from avsync_cli.web.storage import Refusal, describe_limit, receive

# A report may be the work of a file that took its worker over: it gets no origin, and may ask for nothing.
_REPORT_POLICY = (
    "sandbox allow-scripts allow-modals; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_LONGEST_TAB = 64
Answering = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Site:
    """What is answered from."""

    desk: Desk
    folder: Folder | None
    limit_bytes: int  # of an upload
    linger_s: float


def make_app(site: Site) -> Starlette:
    """The answers for who came through the door (`door.guard`)."""
    routes = [
        Route("/", _send_asset(site, "page.html", "text/html")),
        Route("/page.css", _send_asset(site, "page.css", "text/css")),
        Route("/page.js", _send_asset(site, "page.js", "text/javascript")),
        Route("/api/files", _bind(site, _list_files)),
        Route("/api/files", _bind(site, _expect_file), methods=["POST"]),
        Route("/api/files/{key}", _bind(site, _receive_file), methods=["PUT"]),
        Route("/api/files/{key}", _bind(site, _remove_file), methods=["DELETE"]),
        Route("/api/files/{key}/mend", _bind(site, _mend_file), methods=["POST"]),
        Route("/api/leave", _bind(site, _leave), methods=["POST"]),
        Route("/api/folder", _bind(site, _list_folder)),
        Route("/api/folder/{key}", _bind(site, _borrow_file), methods=["POST"]),
        Route("/files/{key}/report", _bind(site, _send_report)),
        Route("/files/{key}/copy", _bind(site, _send_copy)),
    ]
    handlers = {Refusal: _refuse, HTTPException: _refuse_path, Exception: _own_up}
    app = Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]
    app.router.redirect_slashes = False
    return app


def _bind(site: Site, answer: Callable[[Site, Request], Awaitable[Response]]) -> Answering:
    async def answering(request: Request) -> Response:
        return await answer(site, request)

    return answering


def _as_json(value: Any, status: int = 200) -> Response:  # noqa: ANN401 - JSON values
    """In ASCII, because names of files may be no text at all."""
    return Response(
        json.dumps(value, ensure_ascii=True, allow_nan=False), status, media_type="application/json"
    )


async def _refuse(request: Request, refusal: Refusal) -> Response:
    answer = _as_json({"words": refusal.words}, refusal.status)
    if request.method == "PUT":
        answer.headers["Connection"] = "close"  # else all that still comes would be heard
    return answer


async def _refuse_path(_: Request, error: HTTPException) -> Response:
    return _as_json({"words": error.detail}, error.status_code)


async def _own_up(_: Request, error: Exception) -> Response:
    complain(f"bug: {type(error).__name__}: {error}")
    return _as_json({"words": "a bug of avsync: its terminal says more"}, 500)


def _send_asset(site: Site, name: str, kind: str) -> Answering:
    """A file of the package; the page's style is that of all pages, and its own."""
    assets = files("avsync_cli").joinpath("assets")
    text = assets.joinpath("web", name).read_text(encoding="utf-8")
    if name == "page.css":
        text = assets.joinpath("pages/style.css").read_text(encoding="utf-8") + text
    values = {
        "{version}": __version__,
        "{suffixes}": ",".join(("video/*", *sorted(VIDEO_SUFFIXES))),
        "{linger}": f"{site.linger_s / 60:.0f} minutes",
        "{limit_bytes}": str(site.limit_bytes),
        "{limit}": describe_limit(site.limit_bytes),
    }
    if kind == "text/html":
        for mark, value in values.items():
            text = text.replace(mark, value)

    async def send(_: Request) -> Response:
        return HTMLResponse(text, media_type=kind)

    return send


def _tab_of(request: Request) -> str:
    return request.query_params.get("tab", "")[:_LONGEST_TAB]


async def _list_files(site: Site, request: Request) -> Response:
    if tab := _tab_of(request):
        site.desk.hear(tab)
    return _as_json({"files": site.desk.to_json()})


async def _expect_file(site: Site, request: Request) -> Response:
    name, size = request.query_params.get("name", ""), request.query_params.get("size", "")
    if not (size.isdecimal() and len(size) < 20):
        raise Refusal(400, "of no known size")
    entry = site.desk.expect(name, int(size), _tab_of(request))
    if entry.size > site.limit_bytes:
        words = f"larger than the {describe_limit(site.limit_bytes)} that are taken"
        await run_in_threadpool(site.desk.refuse, entry, words)
        raise Refusal(413, words)
    return _as_json({"key": entry.key}, 201)


async def _receive_file(site: Site, request: Request) -> Response:
    desk, entry = site.desk, site.desk.begin_upload(request.path_params["key"])
    try:
        await receive(
            request.stream(),
            entry.path,
            limit_bytes=site.limit_bytes,
            count=lambda received: desk.count(entry, received),
        )
    except Refusal as refusal:
        await run_in_threadpool(desk.refuse, entry, refusal.words)
        raise
    except BaseException as error:  # whoever sent it is gone, or this server goes
        await run_in_threadpool(desk.remove, entry.key)
        if isinstance(error, ClientDisconnect):
            return Response(status_code=400)
        raise
    desk.enqueue(entry.key)
    return _as_json({}, 201)


async def _remove_file(site: Site, request: Request) -> Response:
    await run_in_threadpool(site.desk.remove, request.path_params["key"])
    return _as_json({})


async def _mend_file(site: Site, request: Request) -> Response:
    site.desk.mend(request.path_params["key"])
    return _as_json({}, 202)


async def _leave(site: Site, request: Request) -> Response:
    await run_in_threadpool(site.desk.leave, _tab_of(request))
    return _as_json({})


async def _list_folder(site: Site, _: Request) -> Response:
    if site.folder is None:
        return _as_json({"name": None, "videos": [], "is_cut": False})
    await run_in_threadpool(list_videos, site.folder)
    videos = [{"key": k, "name": v.file, "size": v.size} for k, v in site.folder.videos.items()]
    return _as_json({"name": str(site.folder.root), "videos": videos, "is_cut": site.folder.is_cut})


async def _borrow_file(site: Site, request: Request) -> Response:
    key = await run_in_threadpool(_borrow, site, request.path_params["key"])
    return _as_json({"key": key}, 201)


def _borrow(site: Site, key: str) -> str:
    """The disk may be slow."""
    item = None if site.folder is None else find_video(site.folder, key)
    if item is None:
        raise Refusal(404, "is not in the folder any more")
    return site.desk.borrow(item).key


async def _send_report(site: Site, request: Request) -> Response:
    entry = site.desk.find(request.path_params["key"])
    if entry.report is None:
        raise Refusal(404, "there is no report")
    name = f"{Path(entry.name).stem}.report.html"
    return _send_file(entry.report, name, "inline", "text/html", {"Content-Security-Policy": _REPORT_POLICY})


async def _send_copy(site: Site, request: Request) -> Response:
    entry = site.desk.find(request.path_params["key"])
    if entry.copy is None or entry.copy_name is None or not entry.copy.is_file():
        raise Refusal(404, "there is no copy")
    return _send_file(entry.copy, entry.copy_name, "attachment", "application/octet-stream", {})


def _send_file(path: Path, name: str, how: str, kind: str, headers: dict[str, str]) -> Response:
    name = name.encode("utf-8", "replace").decode("utf-8")  # names of any bytes
    return FileResponse(path, filename=name, content_disposition_type=how, media_type=kind, headers=headers)
