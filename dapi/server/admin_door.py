# mypy: disallow-untyped-calls=False
# twisted.web is mostly without annotations.
"""Who may call the admin port: the one place that decides it, before any route.

Routes that are open to everybody (see ``Route``) are passed on. For the others, BrowserGuard has refused what a page of
another site makes a browser send; then, where there is a token, a request needs it: as a bearer token, or as the cookie
of a session, which the form at ``/login`` begins and ``POST /logout`` ends.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import secrets
from collections import OrderedDict
from collections.abc import Collection
from typing import Final, cast
from urllib.parse import parse_qs

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource

from dapi.http.answers import answer, body_of, error_answer
from dapi.http.browser_guard import BrowserGuard
from dapi.timing.log_limits import OncePerMinute

_COOKIE: Final = b"dapi_session"
_SESSION_SECONDS = 12 * 3600.0
_MAX_SESSIONS = 64
_MAX_FORM_BYTES = 4096
# So many wrong tokens may come from an address at once, and one more every so many seconds.
_GUESSES = 10
_SECONDS_A_GUESS = 6.0
_MAX_ADDRESSES = 1024

_FORM = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>dapi</title></head><body>
<h1>dapi</h1>
<p role="alert">{problem}</p>
<form method="post" action="/login">
<label>Admin token <input type="password" name="token" autocomplete="current-password" autofocus required></label>
<button>Log in</button>
</form>{log_out}</body></html>
"""
_LOG_OUT = '<form method="post" action="/logout"><button>Log out of this browser</button></form>'


class Sessions:
    """The sessions of browsers: each lasts 12 hours, and there are 64 at most: a new one ends the oldest."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # By the hash of its name, so that the time of a look-up tells nothing of the name.
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def begin(self) -> str:
        """Begin one, and return its name, which is the secret of the browser."""
        name = secrets.token_urlsafe(32)
        self._until[_hash(name.encode())] = self._clock.seconds() + _SESSION_SECONDS
        if len(self._until) > _MAX_SESSIONS:
            self._until.popitem(last=False)
        return name

    def has(self, name: bytes) -> bool:
        """Tell whether a session of this name lasts."""
        return self._until.get(_hash(name), 0.0) > self._clock.seconds()

    def end(self, name: bytes) -> None:
        """End one, if there is one of this name."""
        self._until.pop(_hash(name), None)


class Guesses:
    """Counts the wrong tokens of each address: 10 may come at once, and one more every 6 s."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # When the address has all its guesses again; 1024 addresses at most, those that guessed last.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def seconds_to_wait(self, address: str) -> float:
        """Return after how many seconds the address may guess again; 0: now."""
        return max(0.0, self._full_at.get(address, 0.0) - self._clock.seconds() - (_GUESSES - 1) * _SECONDS_A_GUESS)

    def record_wrong(self, address: str) -> None:
        """Record a wrong token."""
        now = self._clock.seconds()
        self._full_at[address] = max(now, self._full_at.get(address, 0.0)) + _SECONDS_A_GUESS
        self._full_at.move_to_end(address)
        if len(self._full_at) > _MAX_ADDRESSES:
            self._full_at.popitem(last=False)


class AdminDoor(Resource):
    """A resource before the admin API's; it asks for ``token``, unless that is None.

    Everybody may ask at ``open_paths``. ``hosts`` are the names under which the port is reached, besides localhost and
    addresses.
    """

    isLeaf = True
    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        guarded: IResource,
        token: str | None,
        *,
        hosts: Collection[str] = (),
        open_paths: Collection[str] = (),
    ) -> None:
        super().__init__()
        self._guarded = guarded
        self._token = None if token is None else _hash(token.encode())
        self._open_paths = frozenset(path.encode() for path in open_paths)
        self._sessions = Sessions(clock)
        self._guesses = Guesses(clock)
        self._log_limit = OncePerMinute(clock)
        self._inner = BrowserGuard(_Login(self), hosts)

    def render(self, request: IRequest) -> bytes | int:
        """Pass an open request on, and have the others guarded."""
        passes = self._guarded if request.path in self._open_paths else self._inner
        return cast("bytes | int", passes.render(request))

    def render_guarded(self, request: IRequest) -> bytes | int:
        """Handle a request that no other site's page makes."""
        if self._token is not None:
            if request.path == b"/login":
                return self._log_in(request)
            if request.path == b"/logout":
                return self._log_out(request)
            refusal = self._refusal(request)
            if refusal is not None:
                return refusal
        return cast("bytes | int", self._guarded.render(request))

    def _refusal(self, request: IRequest) -> bytes | None:
        """Return the answer to a request without proof, None for one that has it."""
        scheme, _, given = (request.getHeader(b"authorization") or b"").partition(b" ")
        if scheme.lower() == b"bearer":
            problem = self._problem_of(request, given.strip())
            return None if problem is None else _refused(request, *problem)
        if self._sessions.has(request.getCookie(_COOKIE) or b""):
            return None
        if request.method in (b"GET", b"HEAD") and b"text/html" in (request.getHeader(b"accept") or b""):
            return _see_other(request, b"/login")
        return _refused(request, 401, "this needs dapi's admin token, as Authorization: Bearer …")

    def _problem_of(self, request: IRequest, given: bytes) -> tuple[int, str] | None:
        """Return status and text for a wrong token, or for any of an address that guessed too often; None: right."""
        address = request.getClientAddress().host
        wait_seconds = self._guesses.seconds_to_wait(address)
        if wait_seconds > 0:
            request.setHeader(b"Retry-After", b"%d" % (wait_seconds + 1))
            return 429, f"too many wrong tokens from {address}: wait {wait_seconds:.0f} s"
        if self._token is not None and hmac.compare_digest(_hash(given), self._token):
            return None
        self._guesses.record_wrong(address)
        if self._log_limit.is_due("wrong"):
            self.log.warn("a wrong admin token came from {address}", address=address)
        return 401, "the admin token is wrong"

    def _log_in(self, request: IRequest) -> bytes:
        if request.method in (b"GET", b"HEAD"):
            has_session = self._sessions.has(request.getCookie(_COOKIE) or b"")
            return _form(request, 200, "", _LOG_OUT if has_session else "")
        if request.method != b"POST":
            return error_answer(request, 405, "GET the form, or POST it")
        body = body_of(request)
        fields = parse_qs(body.decode("latin-1")) if len(body) <= _MAX_FORM_BYTES else {}
        problem = self._problem_of(request, fields.get("token", [""])[0].strip().encode("latin-1", "replace"))
        if problem is not None:
            return _form(request, *problem)
        # A session that is set by somebody else's hand is worth nothing: each log-in has a new one.
        self._sessions.end(request.getCookie(_COOKIE) or b"")
        _set_cookie(request, self._sessions.begin(), _SESSION_SECONDS)
        return _see_other(request, b"/")

    def _log_out(self, request: IRequest) -> bytes:
        if request.method != b"POST":
            return error_answer(request, 405, "POST it")
        self._sessions.end(request.getCookie(_COOKIE) or b"")
        _set_cookie(request, "", 0)
        return _see_other(request, b"/login")


class _Login(Resource):
    """What BrowserGuard guards."""

    isLeaf = True

    def __init__(self, door: AdminDoor) -> None:
        super().__init__()
        self._door = door

    def render(self, request: IRequest) -> bytes | int:
        return self._door.render_guarded(request)


def _hash(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def _refused(request: IRequest, code: int, problem: str) -> bytes:
    if code == 401:
        request.setHeader(b"WWW-Authenticate", b'Bearer realm="dapi"')
    return error_answer(request, code, problem)


def _see_other(request: IRequest, path: bytes) -> bytes:
    request.setHeader(b"Location", path)
    return answer(request, 303, b"")


def _set_cookie(request: IRequest, value: str, seconds: float) -> None:
    secure = "; Secure" if request.isSecure() else ""
    cookie = f"{_COOKIE.decode()}={value}; Path=/; Max-Age={seconds:.0f}; HttpOnly; SameSite=Strict{secure}"
    request.responseHeaders.addRawHeader(b"Set-Cookie", cookie.encode())


def _form(request: IRequest, code: int, problem: str, log_out: str = "") -> bytes:
    body = answer(request, code, _FORM.format(problem=html.escape(problem), log_out=log_out).encode())
    request.setHeader(b"Content-Type", b"text/html; charset=utf-8")
    request.setHeader(b"Cache-Control", b"no-store")
    request.setHeader(
        b"Content-Security-Policy", b"default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    request.setHeader(b"X-Content-Type-Options", b"nosniff")
    # With no-referrer, browsers send the form with "Origin: null", which is refused.
    request.setHeader(b"Referrer-Policy", b"same-origin")
    return body
