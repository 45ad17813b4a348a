"""Who may come in: the browser that was shown the address, and no page of anybody else.

The address has a token that is good for one visit. That visit gets a cookie, which all tabs of the browser
share. `Host` must be the one address that is served, against names of strangers that lead here; `Origin` and
`Sec-Fetch-Site` must be the page itself, against pages of strangers in the same browser.
"""

import secrets
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN = "token"
_SAFE = ("GET", "HEAD")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# Not a redirect: a browser would take that for a part of whoever had led it here, and keep the cookie back.
_WELCOME = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>avsync</title>'
    '<meta http-equiv="refresh" content="0;url=/"><p><a href="/">avsync</a></p></html>'
)
_CLOSED = (
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1"><title>avsync: closed</title>'
    "<h1>This page is closed</h1><p>Its address is good for one visit, and for the browser that made it. "
    "To open it here, end avsync where it runs and start it again: <code>avsync web</code> prints a new "
    "address.</p></html>"
)


@dataclass
class Door:
    """The secrets of one run on 127.0.0.1:`port`."""

    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    is_used: bool = False  # the token

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"http://{self.host}/?{TOKEN}={self.token}"

    @property
    def cookie(self) -> str:
        """Its name: browsers do not tell the ports of a machine apart."""
        return f"avsync_{self.port}"


def guard(app: "ASGIApp", door: Door) -> "ASGIApp":
    """The app behind the door; every answer has the headers that keep the page to itself."""

    async def guarded(scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)

        async def send_closed(message: "Message") -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = _answer_at_door(scope, door)
        return await (app if answer is None else answer)(scope, receive, send_closed)

    return guarded


def _answer_at_door(scope: "Scope", door: Door) -> Response | None:
    """What is answered without the app; None for who may come in."""
    headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
    if headers.getlist("host") != [door.host]:
        return PlainTextResponse(f"avsync is at {door.host} alone\n", 421)
    if method not in _SAFE and headers.get("origin") != f"http://{door.host}":
        return PlainTextResponse("not from this page\n", 403)
    if path != "/" and headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return PlainTextResponse("not from this page\n", 403)
    given = QueryParams(scope["query_string"]).get(TOKEN) if path == "/" else None
    if _has_cookie(headers, door):
        return None if given is None else RedirectResponse("/", 303)
    if given is None or method != "GET" or door.is_used or not _is_same(given, door.token):
        return HTMLResponse(_CLOSED, 403)
    door.is_used = True
    welcome = HTMLResponse(_WELCOME)
    welcome.set_cookie(door.cookie, door.secret, httponly=True, samesite="strict")
    return welcome


def _has_cookie(headers: Headers, door: Door) -> bool:
    for line in headers.getlist("cookie"):
        for part in line.split(";"):  # by itself: a neighbour's odd cookie must not hide ours
            try:
                cookie = SimpleCookie(part.strip()).get(door.cookie)
            except CookieError:
                continue
            if cookie is not None and _is_same(cookie.value, door.secret):
                return True
    return False


def _is_same(given: str, secret: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "replace"), secret.encode("ascii"))
