"""The tokens in the nodes' callback bases, which name a node and prove that it speaks.

A node appends ``/generated`` to whatever base its init gave it (docs/protocol/node.md, 'Callbacks'), so a token in the
base comes back with each batch, and the node needs to know nothing of it. A token is
``cb-<node_num>-<token_num>-<HMAC>``: which node, which of its tokens (``token_num`` counts them from 1), and the proof.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path
from typing import NamedTuple

from twisted.application.service import Service

from dapi.database.secret_file import SecretFile
from dapi.errors import StartError

_SECRET_BYTES = 32
# Right tokens that are remembered: nobody else can make one, so they are as many as the nodes.
_MAX_REMEMBERED = 20_000
_TOKEN = re.compile(r"cb-(0|[1-9][0-9]{0,18})-([1-9][0-9]{0,18})-[A-Za-z0-9_-]{43}", re.ASCII)


class Proven(NamedTuple):
    """What a right token says: the node's number, and which of its tokens it is."""

    node_num: int
    token_num: int


class CallbackTokens(Service):
    """Makes and checks tokens with the secret in the file beside the database at ``path``, ``path`` + ``.secret``.

    ``startService`` reads the secret, and makes it at the first start, readable by its owner only. It raises StartError
    when it can do neither. A new secret makes all tokens wrong that the nodes were told before.
    """

    def __init__(self, path: str) -> None:
        self._file = SecretFile(
            Path(f"{os.path.realpath(path)}.secret"),
            "the secret of the callback tokens",
            exposed="rotate the nodes' tokens (POST /admin/v1/nodes/<id>/rotate)",
        )
        self._secret = b""
        self._proven: dict[str, Proven] = {}

    def startService(self) -> None:
        """Read the secret, or make it."""
        secret = self._file.read_or_make(lambda: secrets.token_bytes(_SECRET_BYTES))
        if len(secret) != _SECRET_BYTES:
            raise StartError(
                f"{self._file.path} has {len(secret)} bytes and not {_SECRET_BYTES}: restore it from a back-up, or "
                "delete it to have a new one made, with which nodes that work now begin anew"
            )
        self._secret = secret
        self._proven.clear()
        super().startService()  # type: ignore[no-untyped-call]

    def token(self, node_num: int, token_num: int) -> str:
        """Return a token of a node."""
        if not self._secret:
            raise RuntimeError("the tokens are not started")
        said = f"cb-{node_num}-{token_num}"
        proof = hmac.digest(self._secret, f"dapi callback {said}".encode(), hashlib.sha256)
        return f"{said}-{base64.urlsafe_b64encode(proof).decode().rstrip('=')}"

    def proven(self, token: str) -> Proven | None:
        """Return what a token says, None for a wrong one; how wrong it is does not show in the time that this takes.

        What was right once is looked up, by a hash that nobody outside can know: a node proves itself with each batch.
        """
        if (known := self._proven.get(token)) is not None:
            return known
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        said = Proven(int(match[1]), int(match[2]))
        if not hmac.compare_digest(token, self.token(*said)):
            return None
        if len(self._proven) >= _MAX_REMEMBERED:
            self._proven.clear()
        self._proven[token] = said
        return said
