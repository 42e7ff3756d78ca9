"""The body of a request of the admin API."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.web.server import Request

from dapi.http.answers import HttpError, body_of


def decode_body(request: Request, wanted: Any) -> Any:
    """Decode a JSON body; raise HttpError, which names the field, when it is not what is wanted."""
    media_type = (request.getHeader(b"content-type") or b"").partition(b";")[0].strip().lower()
    if media_type != b"application/json":
        # A page of another site can have a browser send any other type without asking first.
        raise HttpError(415, "send JSON, with the header Content-Type: application/json")
    try:
        return msgspec.json.decode(body_of(request), type=wanted)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HttpError(400, str(error)) from error
