"""What keeps messages from being sent, and what mends it.

Each kind of message is sent by itself, and so is each problem of its own::

             a problem that people can mend
    open ────────────────────────────────────▶ held
      ▲                                          │
      └──────────────────────────────────────────┘
        the chain executes a message of the kind

While a kind is held, one message of it is sent in each block, to find out whether it is mended; all others are stored.
While the network runs PoC v2 nothing is sent at all (see ``dapi.phases.poc_version``).
"""

from __future__ import annotations

import enum
import re

from twisted.logger import Logger

from dapi.chain.grants import grant_command
from dapi.errors import ChainRefusedError
from dapi.messages import Kind
from dapi.phases.poc_version import PocVersion
from dapi.submission.outcomes import Outcome, judge
from dapi.timing.log_limits import SayOnce

_DIGITS = re.compile(r"\d+")


class HoldCause(enum.StrEnum):
    """What keeps the messages of a kind back."""

    GRANT = "grant"
    """The participant has not granted the key the right to send them."""
    KEY = "key"
    """The key is not the participant's, or not that of its account."""
    ACCOUNT = "account"
    """The key has no account on the chain."""
    FUNDS = "funds"
    """The key has no coins to pay with."""
    FEES = "fees"
    """The chain node wants fees."""
    GAS = "gas"
    """The chain allows less gas in a block."""
    OTHER = "other"
    """The chain says no for a reason that dapi does not know."""


_OF_SDK = {
    4: HoldCause.KEY,
    5: HoldCause.FUNDS,
    8: HoldCause.KEY,
    9: HoldCause.ACCOUNT,
    13: HoldCause.FEES,
    41: HoldCause.GAS,
}


class Problems:
    """The problems of sending for the key ``signer`` and the ``participant``, which are addresses.

    ``last`` says what went wrong since the last confirmation, and ``held`` in words what keeps each kind back, of which
    ``causes`` has the cause. ``grant_expires`` is the day of the first grant that expires soon.
    """

    log = Logger()

    def __init__(self, signer: str, participant: str, poc_version: PocVersion) -> None:
        self._signer = signer
        self._participant = participant
        self._poc_version = poc_version
        self.last: str | None = None
        self.held: dict[Kind, str] = {}
        self.causes: dict[Kind, HoldCause] = {}
        self.grant_expires: str | None = None
        self._probed_at: dict[Kind, int] = {}
        self._log_once = SayOnce()

    @property
    def moved_reason(self) -> str | None:
        """Why nothing is sent at all: the network runs PoC v2. None: it does not, as far as is known."""
        return self._poc_version.moved_reason

    # Kinds.

    def open_kinds(self) -> frozenset[Kind]:
        """Return the kinds that nothing keeps back."""
        return frozenset(Kind) - self.held.keys()

    def kinds_to_probe(self, height: int) -> list[Kind]:
        """Return the kinds of which one message may be sent to see whether they are still held; once a block."""
        return [kind for kind in self.held if self._probed_at.get(kind, 0) < height]

    def probed(self, kind: Kind, height: int) -> None:
        """Record that a message of a held kind was chosen while ``height`` was the latest block."""
        self._probed_at[kind] = height

    def hold(self, kind: Kind, codespace: str, code: int, log: str) -> str:
        """Hold a kind because of an answer of the chain; return the problem in words, with what mends it."""
        mend = self._mend(codespace, code)
        text = f"{codespace} {code}: {log}" + (f"; {mend}" if mend else "")
        cause = HoldCause.OTHER
        if codespace in ("authz", "sdk"):
            cause = HoldCause.GRANT if codespace == "authz" else _OF_SDK.get(code, HoldCause.OTHER)
        self.hold_back(kind, text, cause)
        return text

    def hold_back(self, kind: Kind, text: str, cause: HoldCause) -> None:
        """Hold a kind for the problem that ``text`` tells."""
        if kind not in self.held:
            self.log.error("{kind} messages are held until this is mended: {problem}", kind=kind, problem=text)
        self.held[kind], self.causes[kind] = text, cause

    def release(self, kind: Kind) -> None:
        """Record that the chain executes messages of a kind."""
        self._probed_at.pop(kind, None)
        self.causes.pop(kind, None)
        if self.held.pop(kind, None) is not None:
            self.log.info("{kind} messages are sent again", kind=kind)

    def _mend(self, codespace: str, code: int) -> str | None:
        if codespace == "authz":
            return f"the participant has to run: {grant_command(self._signer)}"
        if codespace != "sdk":
            return None
        return {
            4: f"look whether {self._signer} may sign for {self._participant} (chain_node.account_public_key, the key)",
            5: f"send coins to {self._signer}, which pays",
            8: "look whether the signing key is the one of its account",
            9: f"create the account {self._signer}: send the smallest amount of coins to it",
            13: "use a chain node (chain_node.url) without minimum-gas-prices",
            41: "set chain_node.gas_limit to at most what the chain allows in a block",
        }.get(code)

    # All kinds.

    def record(self, error: Exception) -> None:
        """Record what went wrong, and log it if it is news."""
        if isinstance(error, ChainRefusedError) and is_of_a_moved_network(error):
            self.stop_sending(str(error))
        self.record_text(str(error))

    def record_text(self, problem: str) -> None:
        """Record what went wrong in words, and log it if it is news."""
        self.last = problem
        # Other counts and times in it are no news.
        if self._log_once.is_new(_DIGITS.sub("#", problem)):
            self.log.warn("trying again in a few seconds: {error}", error=problem)

    def confirmed(self) -> None:
        """Record that a transaction is in a block with code 0: what went wrong before is over."""
        self.last = None
        self._log_once.is_new(None)

    def stop_sending(self, reason: str) -> None:
        """Send nothing while the network runs PoC v2, which a refusal has told."""
        self._poc_version.refused(reason)


def is_of_a_moved_network(error: ChainRefusedError) -> bool:
    """Return whether a refusal tells that the network has moved to PoC v2."""
    return judge(error.code, error.codespace, error.log) is Outcome.MOVED
