"""Every problem that dapi can have, by its id: one line each.

The ids are for ever: alerts, scripts and the documentation name them.
"""

from __future__ import annotations

import enum


class Severity(enum.StrEnum):
    """How grave a problem is, the gravest first."""

    CRITICAL = "critical"
    """Batches are being lost, or will be at the end of this window."""
    WARNING = "warning"
    """Somebody should look at it; nothing is lost yet."""
    INFO = "info"
    """It works, though not as well as it could, or it is a setting that is worth a thought."""

    @property
    def rank(self) -> int:
        """Its place when problems are sorted."""
        return list(Severity).index(self)


_CRITICAL, _WARNING, _INFO = Severity


class ProblemId(enum.StrEnum):
    """The ids. Each has a severity, unless a check says otherwise, the part that it is about, and what it means."""

    severity: Severity
    part: str
    meaning: str

    def __new__(cls, word: str, severity: Severity, part: str, meaning: str) -> ProblemId:
        """Make a member of a line of the table."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.severity, member.part, member.meaning = severity, part, meaning
        return member

    @property
    def chapter(self) -> str:
        """The anchor of the chapter that tells more."""
        return self.value

    DATABASE_FULL = "database-full", _CRITICAL, "database", "the disk has no room for new batches"
    DATABASE_LOCKED = "database-locked", _CRITICAL, "database", "another program holds the database"
    DATABASE_BROKEN = "database-broken", _CRITICAL, "database", "nothing can be stored any more"
    DISK_HANGS = "disk-hangs", _CRITICAL, "database", "a write does not end"

    CHAIN_NOT_CONFIGURED = "chain-not-configured", _CRITICAL, "chain", "no chain is configured"
    CHAIN_UNREACHABLE = "chain-unreachable", _CRITICAL, "chain", "no chain node answers"
    CHAIN_HALTED = "chain-halted", _CRITICAL, "chain", "no new block comes"
    CHAIN_CATCHING_UP = "chain-catching-up", _CRITICAL, "chain", "the chain node does not have the latest blocks yet"
    CHAIN_OTHER = "chain-other", _CRITICAL, "chain", "the chain nodes are of another chain"
    CHAIN_MOVED_TO_V2 = "chain-moved-to-v2", _CRITICAL, "chain", "the network has moved to PoC v2"
    CHAIN_NODE_FAILING = "chain-node-failing", _WARNING, "chain node", "a chain node does not answer"
    CHAIN_NODE_BEHIND = "chain-node-behind", _WARNING, "chain node", "a chain node is behind the others"
    CHAIN_NODE_OTHER = "chain-node-other", _WARNING, "chain node", "a chain node is of another chain"

    GRANT_MISSING = "grant-missing", _CRITICAL, "sending", "the key may not send for the participant"
    GRANT_EXPIRES = "grant-expires", _WARNING, "sending", "a grant expires within 30 days"
    MESSAGES_HELD = "messages-held", _CRITICAL, "sending", "the chain refuses all messages of a kind"
    SENDING_FAILS = "sending-fails", _WARNING, "sending", "transactions do not get onto the chain"
    SENDING_STOPPED = "sending-stopped", _CRITICAL, "sending", "nothing is sent, for a reason inside dapi"

    CLOCK_OFF = "clock-off", _WARNING, "process", "this machine's clock is wrong"
    CALLBACKS_OPEN = "callbacks-open", _WARNING, "callbacks", "whoever reaches the callbacks can post for any node"
    CALLBACKS_REFUSED = "callbacks-refused", _WARNING, "callbacks", "somebody came without a right callback token"
    ADMIN_OPEN = "admin-open", _INFO, "admin", "others can reach the admin API, whose token is not encrypted"

    NOT_DRIVING = "not-driving", _INFO, "phases", "dapi gives the nodes no commands"
    PHASES_NOT_FOLLOWED = "phases-not-followed", _CRITICAL, "phases", "dapi does not know where the chain is"
    STAGE_URGENT = "stage-urgent", _CRITICAL, "phases", "something in this stage is urgent"

    NODES_NOT_LOADED = "nodes-not-loaded", _CRITICAL, "nodes", "registered nodes cannot be used"
    NODE_FAILS = "node-fails", _CRITICAL, "node", "a node is not reached, or refuses"
    WEBSOCKET_REFUSED = "websocket-refused", _WARNING, "websocket", "a node's WebSocket cannot be used"
    RELAY_AWAY = "relay-away", _WARNING, "relay", "the network's own api container cannot be reached"
    RELAY_HELD = "relay-held", _CRITICAL, "relay", "callbacks came that must not be handed on"
    RELAY_SET_ASIDE = "relay-set-aside", _CRITICAL, "relay", "the api container will never take some callbacks"
    RELAY_MISROUTED = "relay-misrouted", _CRITICAL, "relay", "callbacks do not reach the api container's route"
    RELAY_UNKNOWN_NODE = (
        "relay-unknown-node",
        _CRITICAL,
        "relay",
        "the api container does not know a node",
    )
    RELAY_REFUSED = "relay-refused", _CRITICAL, "relay", "the api container refuses callbacks for now"
    RELAY_NOT_COUNTED = "relay-not-counted", _CRITICAL, "relay", "what was answered with 200 is not counted"
    RELAY_FALLEN = "relay-fallen", _CRITICAL, "relay", "the api container counts less than before"
    RELAY_CANNOT_ASK = "relay-cannot-ask", _WARNING, "relay", "the api container does not tell what dapi asks"
    RELAY_PASSING = "relay-passing", _CRITICAL, "relay", "dapi's own disk fails, so nothing is kept"
    WATCH_SILENT = "watch-silent", _CRITICAL, "PoC v2", "nodes generate, and no artifact is stored"
    WATCH_NOT_COMMITTED = "watch-not-committed", _CRITICAL, "PoC v2", "what is stored is not committed"
    WATCH_TAIL = "watch-tail", _WARNING, "PoC v2", "the end of a stage was not committed"
    WATCH_WEIGHTS = "watch-weights", _CRITICAL, "PoC v2", "the chain does not have the nodes' weights"
    WATCH_RESTARTED = "watch-restarted", _WARNING, "PoC v2", "the api container was started anew in a stage"
    WATCH_CANNOT_ASK = "watch-cannot-ask", _WARNING, "PoC v2", "the api container or the chain does not answer"
    RELAY_BROKE = "relay-broke", _CRITICAL, "relay", "a part of the relay broke"

    CALLBACKS_NEVER_SEEN = "callbacks-never-seen", _CRITICAL, "callbacks", "a node has never reached the callbacks"
