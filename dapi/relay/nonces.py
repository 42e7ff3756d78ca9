"""Which nonces of one stage and model were sent, and which of them taken: how many different ones, in a byte each."""

from __future__ import annotations

from collections.abc import Sequence

from dapi.messages.sizes import MIB

_MOST = 2**26
_UNKNOWN, _SENT, _TAKEN = range(3)
_MARK_SENT = bytes.maketrans(bytes([_UNKNOWN]), bytes([_SENT]))
# The flags grow by pieces: what they were before needs no memory beside them then.
_PIECE = bytes(MIB)


class NonceSet:
    """Distinct nonces from 0 on: ``taken`` are part of ``sent``.

    ``is_exact`` is false once there was one that could not be remembered: it is below 0, too high, or came after
    ``close``, which keeps the numbers and gives the memory back.
    """

    def __init__(self) -> None:
        self._flags = bytearray()
        self._is_closed = False
        self.sent = 0
        self.taken = 0
        self.is_exact = True

    def close(self) -> None:
        """Remember no nonce any more, and how many there were."""
        self._flags, self._is_closed = bytearray(), True

    def send(self, nonces: Sequence[int]) -> None:
        """Add nonces that are sent."""
        if not self._make_room(nonces):
            return
        flags = self._flags
        if isinstance(nonces, range):
            where = slice(nonces.start, nonces.stop, nonces.step)
            before = flags[where]
            self.sent += before.count(_UNKNOWN)
            flags[where] = before.translate(_MARK_SENT)
            return
        for nonce in nonces:
            if flags[nonce] == _UNKNOWN:
                flags[nonce] = _SENT
                self.sent += 1

    def take(self, nonces: Sequence[int]) -> int:
        """Add nonces that are taken; return how many of them were not before."""
        if not self._make_room(nonces):
            return 0
        flags, before = self._flags, self.taken
        if isinstance(nonces, range):
            where = slice(nonces.start, nonces.stop, nonces.step)
            found = flags[where]
            self.sent += found.count(_UNKNOWN)
            self.taken += len(nonces) - found.count(_TAKEN)
            flags[where] = bytes([_TAKEN]) * len(nonces)
            return self.taken - before
        for nonce in nonces:
            if (flag := flags[nonce]) != _TAKEN:
                flags[nonce] = _TAKEN
                self.sent += flag == _UNKNOWN
                self.taken += 1
        return self.taken - before

    def _make_room(self, nonces: Sequence[int]) -> bool:
        """Have a flag for each of the nonces; return False where there is none to be remembered."""
        if not nonces:
            return False
        # Of a range its ends, which costs no look at all the others.
        ends = (nonces[0], nonces[-1]) if isinstance(nonces, range) else nonces
        highest = max(ends)
        if min(ends) < 0 or highest >= _MOST or self._is_closed:
            self.is_exact = False
            return False
        while (missing := highest + 1 - len(self._flags)) > 0:
            self._flags += _PIECE[:missing]
        return True
