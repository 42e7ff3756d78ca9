"""Who may call the callbacks: the one place that decides it, from the path of a request."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from dapi.broker.callback_tokens import CallbackTokens
from dapi.broker.nodes import Node
from dapi.errors import ForbiddenError, NotReadyError
from dapi.http.answers import HttpError
from dapi.messages.printable import printable
from dapi.timing.log_limits import OncePerMinute

# Below /v1 as ML nodes know them, and below /mlnode/v1 as later ones do.
BASES = ("/v1/poc-batches", "/mlnode/v1/poc-batches")
_KINDS = ("generated", "validated")
_UNPROVEN = "the path has no right callback token: a node is told its own with its init"
_MAX_ADDRESSES = 64
_RECENT_SECONDS = 60.0


class CallbackDoor:
    """Tells by its token whose a callback is, and refuses those that prove nothing.

    ``nodes`` returns the registered nodes, and ``node_by_num`` the one with a number; they raise NotReadyError while
    the nodes are not loaded, ``node_by_num`` UnknownNodeError, too. A path without a token is taken from everybody with
    ``takes_plain``; without it from those nodes alone that were told such a base before there were tokens, until the
    next stage begins. Everybody may ask at ``open_paths``.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        tokens: CallbackTokens,
        nodes: Callable[[], Iterable[Node]],
        node_by_num: Callable[[int], Node],
        *,
        takes_plain: bool,
        open_paths: Collection[str] = (),
    ) -> None:
        self._clock = clock
        self._tokens = tokens
        self._nodes = nodes
        self._node_by_num = node_by_num
        self._takes_plain = takes_plain
        self._open_paths = frozenset(open_paths)
        self._refused: dict[str, int] = {}
        self._refused_at: float | None = None
        self._log_limit = OncePerMinute(clock)

    def admit(self, path: bytes, address: str) -> int | None:
        """Look at a request before its body is read, and return who makes it, as ``caller`` does.

        Raises what ``caller`` raises, and HttpError for a path where nothing is.
        """
        if path.partition(b"?")[0].decode("latin-1") in self._open_paths:
            return None
        token = _token_of(path)
        try:
            return self.caller(token)
        except ForbiddenError as error:
            self.count_refusal(address, str(error))
            raise

    def caller(self, token: str | None) -> int | None:
        """Return the number of the node that a token proves; None for a caller that needs none.

        Raises ForbiddenError when there is no right token, UnknownNodeError when the node was removed, and
        NotReadyError while the nodes are not loaded.
        """
        if token is None:
            if not self._takes_plain and not any(node.takes_token(0) for node in self._nodes()):
                raise ForbiddenError(_UNPROVEN)
            return None
        proven = self._tokens.proven(token)
        if proven is None or not self._node_by_num(proven.node_num).takes_token(proven.token_num):
            raise ForbiddenError(_UNPROVEN)
        return proven.node_num

    def check_unproven(self, node_num: int) -> None:
        """Raise ForbiddenError unless this node may deliver without a token, else what ``node_by_num`` raises."""
        if not self._takes_plain and not self._node_by_num(node_num).takes_token(0):
            raise ForbiddenError(_UNPROVEN)

    def count_refusal(self, address: str, reason: str) -> None:
        """Count a request that was refused, and log it if that is due."""
        # Whoever has a network of addresses must not fill the memory with them.
        address = address if address in self._refused or len(self._refused) < _MAX_ADDRESSES else "others"
        self._refused[address] = self._refused.get(address, 0) + 1
        self._refused_at = self._clock.seconds()
        if self._log_limit.is_due("refused"):
            self.log.warn(
                "a callback from {address} was refused ({count} so far): {reason}",
                address=address,
                count=sum(self._refused.values()),
                reason=reason,
            )

    def status(self) -> dict[str, Any]:
        """Return how many requests were refused, by address, and whether one was in the last minute.

        ``unproven`` says what becomes of batches without a token: they are ``taken``, or ``refused``, or taken from
        some nodes ``until the next stage``.
        """
        try:
            is_any_plain = any(node.takes_token(0) for node in self._nodes())
        except NotReadyError:
            # That is shown elsewhere.
            is_any_plain = False
        plain = "taken" if self._takes_plain else "until the next stage" if is_any_plain else "refused"
        is_recent = self._refused_at is not None and self._clock.seconds() - self._refused_at < _RECENT_SECONDS
        return {"unproven": plain, "refused_by_address": self._refused, "refused_lately": is_recent}


def _token_of(path: bytes) -> str | None:
    """Return the token in a path, None for a path that is right without one; raises HttpError for any other path."""
    text = path.partition(b"?")[0].decode("latin-1").removesuffix("/")
    for base in BASES:
        *tokens, kind = text.removeprefix(f"{base}/").split("/")
        if text.startswith(f"{base}/") and kind in _KINDS and len(tokens) <= 1:
            return tokens[0] if tokens else None
    raise HttpError(404, f"there is nothing at {printable(text)}")
