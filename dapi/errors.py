"""Every error that dapi raises on purpose.

::

    DapiError
    ├── ConfigError         the operator's input is wrong: say what to change
    ├── StartError          the process must not start: database, ports, keys
    ├── NotReadyError       dapi starts or stops: it can be asked again later
    ├── MessageError        a node sent something that is no valid message
    ├── UnknownNodeError    no node has this id or number
    ├── UnknownBatchError   no batch that is kept has this id, or none in the state that is needed
    ├── StoreError          not on disk, so it must not be acknowledged
    │   ├── StoreBusyError    … now: full, locked, or too much is pending; it heals by itself
    │   ├── StoreClosedError  … here: the database is not open, before its start or once it is stopped
    │   └── StoreBrokenError  … ever: the process must stop and recover from its database
    ├── MLNodeError         a call to an ML node failed
    └── ChainError          a call to the chain did not do what was asked
        ├── ChainUnavailableError  … now: no node answers, or none has room; the same bytes may go again
        ├── ChainStaleError        … with these bytes: look the hash up, then sign anew
        └── ChainRefusedError      … ever: it says no, with a code
"""

from __future__ import annotations


class DapiError(Exception):
    """The root: whatever is not one of these is a defect of ours."""


class ConfigError(DapiError):
    """A setting is wrong; the message names it and says what is allowed."""


class StartError(DapiError):
    """Starting would be unsafe; the message says why and what to do."""


class NotReadyError(DapiError):
    """dapi cannot do this now, because it is still starting, or is stopping already; try again later."""


class MessageError(DapiError):
    """What came is no valid message: ``field`` is the path of the offending field, ``reason`` says what is wrong."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class UnknownNodeError(DapiError):
    """No registered node has the id or number that was given."""


class UnknownBatchError(DapiError):
    """No batch has the id that was given, or it is not in a state in which that can be done."""


class StoreError(DapiError):
    """What was handed over is not on disk, and must not be acknowledged."""


class StoreBusyError(StoreError):
    """It cannot be stored now (disk full, database locked, too many bytes pending); try again later."""


class StoreClosedError(StoreError):
    """The database is not open: it is not started yet, or it is stopping."""


class StoreBrokenError(StoreError):
    """Nothing can be stored any more in this process (failed fsync, corrupt file): it has to stop."""


class MLNodeError(DapiError):
    """A call to an ML node failed.

    ``node_id`` and ``call`` say where, ``status`` is the HTTP status (None when no answer came), ``body`` the
    first characters of the answer.
    """

    def __init__(self, node_id: str, call: str, reason: str, status: int | None = None, body: str = "") -> None:
        where = f"{node_id}: {call}"
        answer = f" ({status})" if status is not None else ""
        super().__init__(f"{where}{answer}: {reason}" + (f": {body}" if body else ""))
        self.node_id = node_id
        self.call = call
        self.status = status
        self.body = body


class ChainError(DapiError):
    """A call to the chain did not do what was asked."""


class ChainUnavailableError(ChainError):
    """No node of the chain could do it now (unreachable, slow, mempool full, index off): try again later.

    For a broadcast this is no proof that nothing arrived: what was sent before an answer got lost may be in a block.
    """


class _ChainAnswerError(ChainError):
    def __init__(self, code: int, codespace: str, log: str) -> None:
        super().__init__(f"{codespace} {code}: {log}")
        self.code = code
        self.codespace = codespace
        self.log = log


class ChainStaleError(_ChainAnswerError):
    """The transaction's time is over, too far ahead, or used already: these bytes will not be taken any more.

    It may have landed before: look its hash up, and only then sign the messages anew with another timestamp.
    """


class ChainRefusedError(_ChainAnswerError):
    """The chain says no and would say it again: ``code`` in ``codespace``, ``log`` in its own words."""
