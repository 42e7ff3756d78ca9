"""Every error that dapi raises on purpose; ``http/answers.py`` gives each its HTTP status.

::

    DapiError
    ├── ConfigError         the operator's input is wrong: say what to change
    ├── StartError          the process must not start: database, ports, keys
    │   └── NewerDatabaseError  a newer dapi has written the database
    ├── NotReadyError       dapi is starting or stopping: try again later
    ├── ForbiddenError      whoever asks has not proven that they may
    ├── MessageError        a message is not valid
    ├── UnknownNodeError    no node has this id or number
    ├── UnknownBatchError   no batch has this id, or it is in another state than is needed
    ├── QuotaError          a node has enough on disk that waits, or is for nothing
    ├── StoreError          it is not on disk, so it must not be acknowledged
    │   ├── StoreBusyError    not now (disk full, file locked, too much pending): it heals by itself
    │   ├── StoreClosedError  not here: the database is not started yet, or is stopped
    │   └── StoreBrokenError  never: the process must stop, and recover from its database
    ├── MLNodeError         a call to an ML node failed
    └── ChainError          a call to the chain failed
        ├── ChainUnavailableError  not now (no node answers, or none has room): offer the same bytes again
        │   ├── MempoolFullError     each mempool that was asked is full
        │   └── ChainPrunedError     never for this height: the nodes do not keep it any more
        ├── ChainStaleError        not with these bytes: look the hash up, then sign anew
        └── ChainRefusedError      never: a node says no, with a code
"""

from __future__ import annotations


class DapiError(Exception):
    """The root. Any other exception is a defect of dapi."""


class ConfigError(DapiError):
    """A setting is wrong; the message names it and says what is allowed."""


class StartError(DapiError):
    """Starting would be unsafe; the message says why and what to do."""


class NewerDatabaseError(StartError):
    """A newer dapi has written the database, so that this one cannot read it."""


class NotReadyError(DapiError):
    """dapi cannot do this now, because it is still starting, or is stopping already; try again later."""


class ForbiddenError(DapiError):
    """Whoever asks may not do this, or has not proven that they may; the message quotes nothing that they sent."""


class MessageError(DapiError):
    """A message is not valid: ``field`` is the path of the wrong field, ``reason`` says what is wrong with it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class UnknownNodeError(DapiError):
    """No registered node has the id or number that was given."""


class UnknownBatchError(DapiError):
    """No batch has the id that was given, or its state does not allow what was asked."""


class QuotaError(DapiError):
    """A node has as much on disk as it may, that waits or that no PoC stage is for; nothing more of it is taken."""


class StoreError(DapiError):
    """A message is not on disk, and must not be acknowledged."""


class StoreBusyError(StoreError):
    """It cannot be stored now (disk full, database locked, too many bytes pending); try again later."""


class StoreClosedError(StoreError):
    """The database is not open: it is not started yet, or it is stopping."""


class StoreBrokenError(StoreError):
    """Nothing can be stored any more in this process (failed fsync, corrupt file): it has to stop."""


class MLNodeError(DapiError):
    """A call to an ML node failed.

    ``node_id`` and ``call`` say which call, ``status`` is the HTTP status (None when no answer came), ``body`` has the
    first characters of the answer. ``is_answered`` says that the node, or a proxy before it, was reached.
    """

    def __init__(
        self,
        node_id: str,
        call: str,
        reason: str,
        status: int | None = None,
        body: str = "",
        *,
        is_answered: bool = False,
    ) -> None:
        where = f"{node_id}: {call}"
        answer = f" ({status})" if status is not None else ""
        super().__init__(f"{where}{answer}: {reason}" + (f": {body}" if body else ""))
        self.node_id = node_id
        self.call = call
        self.status = status
        self.body = body
        self.is_answered = is_answered or status is not None


class ChainError(DapiError):
    """A call to the chain failed."""


class ChainUnavailableError(ChainError):
    """No node of the chain could do it now (unreachable, slow, mempool full, index off): try again later.

    A broadcast that fails so may have arrived all the same: when only its answer was lost, it may be in a block.
    """


class MempoolFullError(ChainUnavailableError):
    """Each mempool that was asked is full, of transactions or of bytes, or is being checked anew."""


class ChainPrunedError(ChainUnavailableError):
    """A block or a state was asked for that the nodes do not keep any more.

    ``lowest`` is the lowest block that one of them still has, None where that was not said.
    """

    def __init__(self, text: str, lowest: int | None = None) -> None:
        super().__init__(text)
        self.lowest = lowest


class _ChainAnswerError(ChainError):
    def __init__(self, code: int, codespace: str, log: str) -> None:
        super().__init__(f"{codespace} {code}: {log}")
        self.code = code
        self.codespace = codespace
        self.log = log
        self.node: str | None = None


class ChainStaleError(_ChainAnswerError):
    """The transaction's timestamp has passed, is too far ahead, or was used already: the chain refuses these bytes.

    The transaction may be in a block already: look its hash up before its messages are signed anew.
    """


class ChainRefusedError(_ChainAnswerError):
    """A node says no, and would say no again: ``code`` in ``codespace``, ``log`` in its own words.

    ``node`` is the host and port of the node that said it, as soon as that is known. Of a broadcast it is that node's
    word alone: another node may have other limits, or may know more of the chain.
    """
