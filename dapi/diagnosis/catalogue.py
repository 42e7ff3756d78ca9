"""Every problem that dapi can have, by its id: one line each.

The ids are for ever: alerts and scripts name them. docs/problems.md has a chapter for each.
"""

from __future__ import annotations

import enum


class Severity(enum.StrEnum):
    """How grave a problem is, the gravest first."""

    CRITICAL = "critical"
    """Batches are being lost, or will be at the end of this window."""
    WARNING = "warning"
    """Somebody should look at it; no batch is lost by it now."""
    INFO = "info"
    """It works, though not as well as it could; or it is a setting that is worth a thought."""

    @property
    def rank(self) -> int:
        """Its place when problems are sorted."""
        return list(Severity).index(self)


_CRITICAL, _WARNING, _INFO = Severity


class ProblemId(enum.StrEnum):
    """The ids. Each has the gravest severity that it can have, the part that it is about, and what it means."""

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
        """The heading of its chapter in docs/problems.md, which is also the chapter's anchor."""
        return self.value

    # Where batches are kept.
    DATABASE_FULL = "database-full", _CRITICAL, "database", "The disk has no room for new batches."
    DATABASE_LOCKED = "database-locked", _CRITICAL, "database", "Another program holds the database."
    DATABASE_BROKEN = "database-broken", _CRITICAL, "database", "Nothing can be stored any more."
    DISK_HANGS = "disk-hangs", _CRITICAL, "database", "A write does not end."
    DISK_SLOW = "disk-slow", _WARNING, "database", "The disk takes more than a second for a commit."
    NODE_QUOTA_FULL = "node-quota-full", _CRITICAL, "outbox", "Too much of one node waits, and no more is taken."

    # The chain.
    CHAIN_NOT_CONFIGURED = "chain-not-configured", _CRITICAL, "chain", "No chain is configured."
    CHAIN_UNREACHABLE = "chain-unreachable", _CRITICAL, "chain", "No chain node answers."
    CHAIN_HALTED = "chain-halted", _CRITICAL, "chain", "No new block comes."
    CHAIN_CATCHING_UP = "chain-catching-up", _CRITICAL, "chain", "The chain node does not have the latest blocks yet."
    CHAIN_OTHER = "chain-other", _CRITICAL, "chain", "The chain nodes are of another chain."
    CHAIN_MOVED_TO_V2 = "chain-moved-to-v2", _CRITICAL, "chain", "The network runs PoC v2."
    CHAIN_NODE_FAILING = "chain-node-failing", _WARNING, "chain node", "One of the chain nodes does not answer."
    CHAIN_NODE_BEHIND = "chain-node-behind", _WARNING, "chain node", "One of the chain nodes is behind the others."
    CHAIN_NODE_OTHER = "chain-node-other", _WARNING, "chain node", "One of the chain nodes is of another chain."

    # What is sent to it.
    SENDING_STOPPED = "sending-stopped", _CRITICAL, "sending", "Nothing is sent, though the chain takes messages."
    SENDING_FAILS = "sending-fails", _WARNING, "sending", "Transactions do not get into a block."
    GRANT_MISSING = "grant-missing", _CRITICAL, "sending", "The key has no grant to send for the participant."
    GRANT_EXPIRES = "grant-expires", _WARNING, "sending", "A grant expires within 30 days."
    KEY_NOT_PARTICIPANTS = "key-not-participants", _CRITICAL, "sending", "The key is not the participant's."
    ACCOUNT_MISSING = "account-missing", _CRITICAL, "sending", "The key has no account on the chain."
    FUNDS_MISSING = "funds-missing", _CRITICAL, "sending", "The key has no coins to pay with."
    FEES_WANTED = "fees-wanted", _CRITICAL, "sending", "The chain node wants fees, and dapi pays none."
    GAS_LIMIT_TOO_HIGH = "gas-limit-too-high", _CRITICAL, "sending", "The chain allows less gas in a block."
    MESSAGES_HELD = "messages-held", _CRITICAL, "sending", "The chain refuses all messages of a kind."
    MESSAGES_LATE = "messages-late", _CRITICAL, "messages", "Messages are about to expire."
    MESSAGES_FAILED = "messages-failed", _CRITICAL, "messages", "The chain has refused messages for good."
    MESSAGES_EXPIRED = "messages-expired", _WARNING, "messages", "Messages have missed their window."
    MESSAGES_DAMAGED = "messages-damaged", _CRITICAL, "messages", "The disk has damaged messages."

    # The stage.
    NOT_DRIVING = "not-driving", _INFO, "phases", "dapi gives the nodes no commands."
    PHASES_NOT_FOLLOWED = "phases-not-followed", _CRITICAL, "phases", "dapi does not know where the chain is."
    SEED_NOT_STORED = "seed-not-stored", _CRITICAL, "stage", "The seed of the stage is not on disk yet."
    BATCHES_NOT_OF_STAGE = "batches-not-of-stage", _CRITICAL, "stage", "Batches are kept and not sent."
    NONCES_OF_OTHERS = "nonces-of-others", _CRITICAL, "stage", "Batches have other nodes' nonces, and are not sent."
    VERDICTS_NOT_ASKED_FOR = "verdicts-not-asked-for", _WARNING, "stage", "Verdicts came that dapi did not ask for."
    PRESERVED_UNKNOWN = "preserved-unknown", _WARNING, "stage", "It is not known which nodes stay in inference."
    NODE_ID_TAKEN = "node-id-taken", _CRITICAL, "stage", "The chain drops a node's batches because of its id."
    VALIDATION_STUCK = "validation-stuck", _CRITICAL, "validation", "The batches to validate cannot be had."
    VALIDATION_UNANSWERED = "validation-unanswered", _CRITICAL, "validation", "Verdicts will be missing."

    # What a host does to be paid.
    UPKEEP_LATE = "upkeep-late", _WARNING, "host", "Something has not been looked after for five minutes."
    NODE_VERSION_UNUSABLE = "node-version-unusable", _WARNING, "host", "The chain's version of ML nodes is no path."
    MODELS_UNKNOWN = "models-unknown", _WARNING, "host", "Governance does not know a node's models."
    NODES_NOT_DECLARED = "nodes-not-declared", _WARNING, "host", "Governance knows no model at all."
    DECLARING_IN_VAIN = "declaring-in-vain", _WARNING, "host", "The chain does not show the declared nodes."
    DECLARED_BY_OTHERS = "declared-by-others", _WARNING, "host", "Somebody else declares other nodes."
    NOT_COUNTED = "not-counted", _WARNING, "host", "A node's confirmed batches count nothing."
    CLAIM_UNPAID = "claim-unpaid", _WARNING, "host", "The claim has ended, and rewards are still owed."
    CLAIM_OF_OTHER_KEY = "claim-of-other-key", _WARNING, "host", "Only another key can claim the rewards."

    # ML nodes.
    NODES_NOT_LOADED = "nodes-not-loaded", _CRITICAL, "nodes", "Registered nodes cannot be used."
    NODE_DOWN = "node-down", _CRITICAL, "node", "A node does not answer."
    NODE_REFUSING = "node-refusing", _CRITICAL, "node", "A node answers, and refuses."
    NODE_COMMAND_BROKE = "node-command-broke", _CRITICAL, "node", "dapi itself failed at a node's command."
    NODE_IDLE = "node-idle", _CRITICAL, "node", "A node does nothing, and should work."
    NODE_ELSEWHERE = "node-elsewhere", _CRITICAL, "node", "A node does something else than it should."
    NODE_WITHOUT_BATCHES = "node-without-batches", _CRITICAL, "node", "A node is in PoC and sends no batch."
    NODE_OF_OTHER_STAGE = "node-of-other-stage", _CRITICAL, "node", "A node computes for another stage."
    NODE_OF_OTHER_OWNER = "node-of-other-owner", _CRITICAL, "node", "A node computes for another participant."
    NODE_NUMBER_DIFFERS = "node-number-differs", _WARNING, "node", "A node's batches carry another node's number."

    # Their ways to dapi.
    WEBSOCKET_NOT_FOUND = "websocket-not-found", _WARNING, "websocket", "The upgrade was answered with 404."
    WEBSOCKET_FORBIDDEN = "websocket-forbidden", _WARNING, "websocket", "The upgrade was answered with 401 or 403."
    WEBSOCKET_TLS = "websocket-tls", _WARNING, "websocket", "TLS to the node's WebSocket fails."
    WEBSOCKET_POLICY = "websocket-policy", _WARNING, "websocket", "The node closes its WebSocket with 1008."
    WEBSOCKET_UNREACHABLE = "websocket-unreachable", _WARNING, "websocket", "The WebSocket's port is not reached."
    WEBSOCKET_FAILS = "websocket-fails", _WARNING, "websocket", "The WebSocket ends again and again."
    CALLBACKS_NEVER_SEEN = "callbacks-never-seen", _CRITICAL, "callbacks", "A node has never reached the callbacks."
    CALLBACK_URL_LOOPBACK = "callback-url-loopback", _CRITICAL, "callbacks", "The callback URL is the node itself."
    CALLBACK_URL_NAME = "callback-url-name", _CRITICAL, "callbacks", "The callback URL has a compose service's name."
    CALLBACK_URL_PORT = "callback-url-port", _CRITICAL, "callbacks", "The callback URL has another port."

    # PoC v2: the way to the network's own api container.
    RELAY_AWAY = "relay-away", _WARNING, "relay", "The network's own api container cannot be reached."
    RELAY_HELD = "relay-held", _CRITICAL, "relay", "Callbacks came that must not be handed on."
    RELAY_NODE_SILENT = "relay-node-silent", _CRITICAL, "relay", "A node generates, and delivers nothing to the relay."
    RELAY_SET_ASIDE = "relay-set-aside", _CRITICAL, "relay", "The api container will never take some callbacks."
    RELAY_MISROUTED = "relay-misrouted", _CRITICAL, "relay", "Callbacks do not reach the api container's route."
    RELAY_UNKNOWN_NODE = "relay-unknown-node", _CRITICAL, "relay", "The api container does not know a node."
    RELAY_REFUSED = "relay-refused", _CRITICAL, "relay", "The api container refuses callbacks for now."
    RELAY_NOT_COUNTED = "relay-not-counted", _CRITICAL, "relay", "What was answered with 200 is not counted."
    RELAY_FALLEN = "relay-fallen", _CRITICAL, "relay", "The api container counts less than before."
    RELAY_CANNOT_ASK = "relay-cannot-ask", _WARNING, "relay", "The api container does not tell what dapi asks."
    RELAY_PASSING = "relay-passing", _CRITICAL, "relay", "dapi's own disk fails, so nothing is kept."
    RELAY_BROKE = "relay-broke", _CRITICAL, "relay", "A part of the relay broke."

    # PoC v2 from beside: what the network's own api container stores and commits.
    WATCH_SILENT = "watch-silent", _CRITICAL, "PoC v2", "Nodes generate, and no artifact is stored."
    WATCH_SLOWER = "watch-slower", _WARNING, "PoC v2", "Less is stored than before: a node may be quiet."
    WATCH_NODE_STOPPED = "watch-node-stopped", _CRITICAL, "PoC v2", "A node generates no more, in mid-stage."
    WATCH_NOT_COMMITTED = "watch-not-committed", _CRITICAL, "PoC v2", "What is stored is not committed."
    WATCH_TAIL = "watch-tail", _WARNING, "PoC v2", "The end of a stage was not committed."
    WATCH_WEIGHTS = "watch-weights", _CRITICAL, "PoC v2", "The chain does not have the nodes' weights."
    WATCH_VOTES = "watch-votes", _CRITICAL, "PoC v2", "No vote of this host is on the chain."
    WATCH_CALLBACK_URL = "watch-callback-url", _CRITICAL, "PoC v2", "A node cannot reach the callback URL by its name."
    WATCH_RESTARTED = "watch-restarted", _WARNING, "PoC v2", "The api container was started anew in a stage."
    WATCH_CANNOT_ASK = "watch-cannot-ask", _CRITICAL, "PoC v2", "The api container or the chain does not answer."

    # The process and its doors.
    CLOCK_OFF = "clock-off", _WARNING, "process", "This machine's clock is wrong."
    FILES_SHORT = "files-short", _WARNING, "process", "The process may open too few files."
    CALLBACKS_OPEN = "callbacks-open", _WARNING, "callbacks", "Whoever reaches the callbacks can post for any node."
    CALLBACKS_REFUSED = "callbacks-refused", _WARNING, "callbacks", "Somebody came without a right callback token."
    CERTIFICATE_ENDED = "certificate-ended", _CRITICAL, "tls", "The certificate of dapi's ports has ended."
    CERTIFICATE_ENDS = "certificate-ends", _WARNING, "tls", "The certificate of dapi's ports ends within 14 days."
    CERTIFICATE_UNUSABLE = "certificate-unusable", _WARNING, "tls", "The new certificate cannot be used."
    ADMIN_OPEN = "admin-open", _INFO, "admin", "Others can reach the admin API, whose token is not encrypted."
