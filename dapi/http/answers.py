# mypy: disallow-untyped-calls=False
# twisted.web is mostly without annotations.
"""What every route answers: JSON, the status of an error by its class, and a shield for work that must go on."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.exceptions import HTTPException

from dapi import errors
from dapi.messages.printable import printable

if TYPE_CHECKING:
    from klein import Klein

RETRY_AFTER_SECONDS = 5

STATUSES: Final[dict[type, int]] = {
    errors.ConfigError: 400,
    errors.ForbiddenError: 403,
    errors.MessageError: 400,
    errors.UnknownNodeError: 404,
    errors.UnknownBatchError: 404,
    errors.QuotaError: 429,
    errors.NotReadyError: 503,
    errors.StoreError: 503,
    # No route lets these through: where one comes, it is a defect.
    errors.StartError: 500,
    errors.MLNodeError: 500,
    errors.ChainError: 500,
}
"""The HTTP status of each error of ours, and of those derived from it."""

T = TypeVar("T")

_log = Logger()


class HttpError(Exception):
    """A fault of a request; it is answered with the status ``code``, and the message as JSON."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def body_of(request: IRequest) -> bytes:
    """Return the whole body of a request, which holds it no longer: its answer may take a while."""
    content, request.content = request.content, BytesIO()
    # Unlike read(), getvalue() copies nothing.
    body: bytes = content.getvalue() if isinstance(content, BytesIO) else content.read()
    content.close()
    return body


def answer(request: IRequest, code: int, body: bytes) -> bytes:
    """Set the status and the headers of a JSON body, and return it for Klein to write."""
    request.setResponseCode(code)
    request.setHeader(b"Content-Length", b"%d" % len(body))
    if body:
        request.setHeader(b"Content-Type", b"application/json")
    return body


def json_answer(request: IRequest, value: Any, code: int = 200) -> bytes:
    """Answer with a value as JSON."""
    return answer(request, code, msgspec.json.encode(value))


def error_body(message: str) -> bytes:
    """Return the body of every answer to a fault."""
    return msgspec.json.encode({"error": message})


def error_answer(request: IRequest, code: int, message: str) -> bytes:
    """Answer with ``{"error": message}``; a 503 has a Retry-After."""
    if code == 503:
        request.setHeader(b"Retry-After", b"%d" % RETRY_AFTER_SECONDS)
    return answer(request, code, error_body(message))


def status_of(error: BaseException | None) -> int:
    """Return the HTTP status of an error, from its class; 500 for one that no route is expected to meet."""
    if isinstance(error, HttpError):
        return error.code
    return next((STATUSES[each] for each in type(error).__mro__ if each in STATUSES), 500)


def whole_number(name: str, text: str, lowest: int, highest: int) -> int:
    """Read the argument ``name`` of a URL; raise HttpError, which says what it may be, at a bad one."""
    # int() takes other alphabets' digits, and refuses thousands of digits.
    if text.isascii() and text.isdigit() and len(text) <= len(str(highest)) and lowest <= int(text) <= highest:
        return int(text)
    raise HttpError(400, f"{name}: {text!r} is no whole number from {lowest} to {highest}")


def failure_answer(request: IRequest, failure: Failure) -> bytes:
    """Answer in JSON a request whose handler, or whose routing, has failed."""
    error = failure.value
    if isinstance(error, HTTPException):
        for name, value in error.get_headers():
            if name == "Allow":
                request.setHeader(name.encode(), value.encode())
        return error_answer(request, error.code or 500, f"{error.name}: {printable(request.uri)}")
    code = status_of(error)
    if code == 500:
        _log.failure(
            "{method} {uri} failed",
            failure,
            method=printable(request.method),
            uri=printable(request.uri),
        )
        return error_answer(request, 500, "internal error: see the log of dapi")
    return error_answer(request, code, str(error))


def new_app() -> Klein:
    """Return a Klein app without routes whose errors are answered in JSON.

    Klein is imported here, because importing it installs a reactor.
    """
    from klein import Klein

    app = Klein()
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.handle_errors(failure_answer)
    return app


def shielded(work: Deferred[T], purpose: str) -> Deferred[T]:
    """Return a Deferred that fires as ``work`` does, and can be cancelled without cancelling it.

    Klein cancels a handler whose client went away, and the cancellation travels to what the handler waits for. Once
    nobody waits any more, a failure of ``work`` is logged, with what it was for.
    """
    outer: Deferred[T] = Deferred()

    def pass_on(result: T | Failure) -> None:
        if not outer.called:
            outer.callback(result)
        elif isinstance(result, Failure):
            _log.warn("{purpose} failed after its request was gone: {error}", purpose=purpose, error=str(result.value))

    work.addBoth(pass_on)
    return outer
