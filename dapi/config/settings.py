"""Every setting, with its default and what it may be."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from dapi.broker.nodes import NodeConfig
from dapi.database.service import DEFAULT_RESERVE_BYTES
from dapi.messages.secret import Secret
from dapi.messages.sizes import MIB
from dapi.poc.websocket_settings import WebSocketSettings
from dapi.submission.settings import SubmitterSettings
from dapi.timing.log_levels import PATTERN as LOG_LEVELS_PATTERN

Port = Annotated[int, Meta(ge=0, le=65535, description="a port, 0 to 65535; 0 lets the system pick one")]
Seconds = Annotated[float, Meta(gt=0, le=86400, description="a number of seconds above 0, one day at most")]
Text = Annotated[str, Meta(min_length=1, description="a text")]
HttpUrl = Annotated[
    str,
    Meta(
        pattern=r"^https?://([^\s/@?#]+@)?(\[[0-9A-Fa-f:.]+\]|[^\s/:@?#\[\]]+)(:[0-9]{1,5})?(/[^\s?#]*)?\Z",
        description="a URL, http://… or https://…, without a query",
    ),
]
ChainUrls = Annotated[
    str,
    Meta(
        pattern=r"^(https?|tcp)://[^/\s,][^\s,]*(,(https?|tcp)://[^/\s,][^\s,]*)*\Z",
        description="an RPC URL, http://…:26657, or several separated by commas",
    ),
]
_HOST_NAMES = r"^ *[A-Za-z0-9._-]+( *, *[A-Za-z0-9._-]+)* *\Z"
HostNames = Annotated[str, Meta(pattern=_HOST_NAMES, description="host names without ports, separated by commas")]
# 33 bytes, the first of which is 2 or 3.
PublicKey = Annotated[
    str,
    Meta(pattern=r"^A[g-z0-9+/][A-Za-z0-9+/]{42}\Z", description="a compressed secp256k1 key, 33 bytes in base64"),
]
Count = Annotated[int, Meta(ge=1, description="a whole number above 0")]
TransactionBytes = Annotated[int, Meta(ge=10_000, le=740_000, description="10000 to 740000 bytes")]
StageBytes = Annotated[int, Meta(ge=MIB, description="a whole number of bytes, 1 MiB at least")]
TotalBytes = Annotated[int, Meta(ge=MIB, description="a whole number of bytes, 1 MiB at least")]
ReserveBytes = Annotated[int, Meta(ge=8 * MIB, description="a whole number of bytes, 8 MiB at least")]
MessageBytes = Annotated[int, Meta(ge=1024, description="a whole number of bytes, 1024 at least")]
LogLevels = Annotated[
    str,
    Meta(
        pattern=LOG_LEVELS_PATTERN,
        description="debug, info, warn, error or critical, perhaps with rooms of dapi after it, info,websocket=debug,",
    ),
]

# A default that a part of dapi has of its own is taken from there.
_SUBMITTER, _WEBSOCKET = SubmitterSettings(), WebSocketSettings()


class ApiConfig(Struct, frozen=True, kw_only=True):
    """The ports of dapi."""

    ml_server_host: Text = "0.0.0.0"  # noqa: S104 - ML nodes call from other machines
    ml_server_port: Port = 9100
    admin_server_host: Text = "127.0.0.1"
    admin_server_port: Port = 9200
    poc_callback_url: HttpUrl | None = None
    """The base under which ML nodes reach the callback port; None: that port on 127.0.0.1."""
    admin_token: Secret | None = None
    admin_token_file: Text | None = None
    """What the admin API asks for, or a file with it; needed where its host is no loopback address."""
    admin_hosts: HostNames | None = None
    """The names that the admin API is reached under, besides localhost and addresses."""
    callback_auth: Literal["required", "optional"] = "required"
    """Whether batches are taken only with the token that dapi tells each node, or also without one."""


class ChainNodeConfig(Struct, frozen=True, kw_only=True):
    """The chain and the key that signs for it. Without a url nothing is submitted.

    The first of several RPC URLs that answers is used. The key is the one in ``key_file``, if that is set, else
    ``signer_key_name`` in the keyring; ``account_public_key`` is the participant's where that is another one.
    """

    url: ChainUrls | None = None
    account_public_key: PublicKey | None = None
    signer_key_name: Text | None = None
    keyring_backend: Literal["file", "test"] = "file"
    keyring_dir: Text = "~/.inference"
    keyring_password: Secret | None = None
    key_file: Text | None = None
    """A file with the 32 bytes of the key in hex, which nobody else can read."""
    max_nonces_per_message: Count = _SUBMITTER.max_nonces
    """The chain's limit for one message: larger batches are sent in parts."""
    max_transaction_bytes: TransactionBytes = _SUBMITTER.max_transaction_bytes
    max_in_flight: Count = _SUBMITTER.max_in_flight
    """How many transactions wait for a block at once, at most."""
    max_in_flight_bytes: TotalBytes = _SUBMITTER.max_in_flight_bytes
    gas_limit: Count = _SUBMITTER.gas_limit
    """Of each transaction; a chain may allow less in one block."""
    max_stage_bytes: StageBytes = 4096 * MIB
    """What the chain may answer when it is asked for everybody's batches of a stage."""
    declare_nodes: bool = True
    """Declare the registered nodes on the chain: a node that is not declared counts nothing."""
    claim_rewards: bool = True
    """Claim what the chain owes for the epoch before."""


class StorageConfig(Struct, frozen=True, kw_only=True):
    """Where batches are kept until the chain has them."""

    path: Text = "~/.dapi/outbox.db"
    reserve_bytes: ReserveBytes = DEFAULT_RESERVE_BYTES
    """Kept occupied beside the database, and given back on a full disk, so that the outbox can be drained: what the
    write-ahead log holds, 4 MiB and the last commit, has to fit into the file then."""
    new_database: bool = False
    """Whether a new database takes the place of an empty file, which else stops the start."""


class WebSocketConfig(Struct, frozen=True, kw_only=True):
    """The connections to the ML nodes."""

    idle_seconds: Seconds = _WEBSOCKET.idle_seconds
    """A connection that brought no batch for this long, while its node should send, is replaced."""
    max_message_bytes: MessageBytes = _WEBSOCKET.max_message_bytes
    compression: bool = _WEBSOCKET.compression


class TlsConfig(Struct, frozen=True, kw_only=True):
    """How ML nodes that are reached over https and wss are checked."""

    ca_file: Text | None = _WEBSOCKET.ca_file
    """PEM file of the authorities that they are checked against; None: the system's."""


class PocConfig(Struct, frozen=True, kw_only=True):
    """How the nodes do their proof of compute."""

    network: Literal["main", "test"] = "main"
    """Whose model parameters an init carries."""
    follow_chain: bool = True
    """Whether the nodes follow the chain's phases, where a chain is configured; else the admin API commands them."""


class PocV2Config(Struct, frozen=True, kw_only=True):
    """A network with PoC v2: whether dapi relays callbacks, and the three ports of the network's own api container."""

    relay: bool = False
    api_url: HttpUrl = "http://api:9100"
    api_public_url: HttpUrl = "http://api:9000"
    api_admin_url: HttpUrl = "http://api:9200"
    watch: bool = False
    """Watch from beside what of each stage is stored and, where chain and participant are set, committed."""
    chain_url: ChainUrls | None = None
    participant: Text | None = None
    hold_suspects: bool = True
    """Hold callbacks with nonces or vectors that no node makes."""


class LogConfig(Struct, frozen=True, kw_only=True):
    """What twistd writes into the log."""

    format: Literal["text", "json"] = "text"
    """Whether a line is a text, or a JSON object."""
    level: LogLevels = "info"
    """The lowest level that is written, and the rooms that have another one."""


class Config(Struct, frozen=True, kw_only=True):
    """All settings; every one has a default."""

    api: ApiConfig = ApiConfig()
    chain_node: ChainNodeConfig = ChainNodeConfig()
    storage: StorageConfig = StorageConfig()
    websocket: WebSocketConfig = WebSocketConfig()
    tls: TlsConfig = TlsConfig()
    poc: PocConfig = PocConfig()
    poc_v2: PocV2Config = PocV2Config()
    log: LogConfig = LogConfig()
    nodes: tuple[NodeConfig, ...] = ()
