"""Every setting, with its default and what it may be.

What docs/settings.md says of a setting is the text below it: `make reference` writes that file anew.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from dapi.broker.nodes import NodeConfig
from dapi.database.service import DEFAULT_RESERVE_BYTES
from dapi.messages.secret import Secret
from dapi.messages.sizes import MIB
from dapi.outbox.quota import NodeQuotaSettings
from dapi.outbox.retention import DEFAULT_KEEP_DAYS
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
Days = Annotated[float, Meta(ge=1, le=36_500, description="a number of days, 1 to 36500")]
LogLevels = Annotated[
    str,
    Meta(
        pattern=LOG_LEVELS_PATTERN,
        description="debug, info, warn, error or critical, perhaps with rooms of dapi after it, info,websocket=debug,",
    ),
]

# A default that a part of dapi has of its own is taken from there.
_SUBMITTER, _WEBSOCKET, _NODE_QUOTA = SubmitterSettings(), WebSocketSettings(), NodeQuotaSettings()


class ApiConfig(Struct, frozen=True, kw_only=True):
    """The ports of dapi."""

    ml_server_host: Text = "0.0.0.0"  # noqa: S104 - ML nodes call from other machines
    """The address on which dapi listens for the callbacks of ML nodes."""
    ml_server_port: Port = 9100
    """Its port."""
    admin_server_host: Text = "127.0.0.1"
    """The address on which dapi listens for the admin API."""
    admin_server_port: Port = 9200
    """Its port."""
    poc_callback_url: HttpUrl | None = None
    """The URL at which ML nodes reach the callback port; without it, that port on 127.0.0.1."""
    admin_token: Secret | None = None
    """What the admin API asks for; needed where its address is no loopback address."""
    admin_token_file: Text | None = None
    """A file with that token."""
    admin_hosts: HostNames | None = None
    """The names that the admin API is reached under, besides localhost and addresses."""
    callback_auth: Literal["required", "optional"] = "required"
    """Whether batches are taken only with the token that dapi tells each node, or also without one."""


class ChainNodeConfig(Struct, frozen=True, kw_only=True):
    """The chain, and the key that signs for it. Without a URL nothing is sent."""

    url: ChainUrls | None = None
    """Chain nodes, in order of preference: the first that answers is used. Two guard against one that stands still."""
    account_public_key: PublicKey | None = None
    """The participant's public key, where another key signs for the participant; without it, the key that signs."""
    signer_key_name: Text | None = None
    """The key that signs, in the keyring."""
    keyring_backend: Literal["file", "test"] = "file"
    """Which keyring: `keyring-file`, which has a password, or `keyring-test`."""
    keyring_dir: Text = "~/.inference"
    """The folder with `keyring-file` or `keyring-test`."""
    keyring_password: Secret | None = None
    """The password of the keyring `file`."""
    key_file: Text | None = None
    """In place of a keyring: a file with the 32 bytes of the key in hex, which nobody but its owner can read."""
    max_nonces_per_message: Count = _SUBMITTER.max_nonces
    """The chain's limit for one message: a larger batch is sent in parts."""
    max_transaction_bytes: TransactionBytes = _SUBMITTER.max_transaction_bytes
    """Messages share a transaction up to this size."""
    max_in_flight: Count = _SUBMITTER.max_in_flight
    """So many transactions wait for a block at most; how many do follows what the chain takes."""
    max_in_flight_bytes: TotalBytes = _SUBMITTER.max_in_flight_bytes
    """Their bytes together, at most; a block has 22 MB."""
    gas_limit: Count = _SUBMITTER.gas_limit
    """Of each transaction; where the chain allows less in a block (code 41), dapi takes that."""
    max_stage_bytes: StageBytes = 4096 * MIB
    """The largest answer that dapi reads when it asks the chain for everybody's batches of a stage."""
    declare_nodes: bool = True
    """Whether dapi declares the nodes on the chain; `false` where the network's own software does it."""
    claim_rewards: bool = True
    """Whether dapi claims the rewards of the epoch before; `false` where the network's own software does it."""


class StorageConfig(Struct, frozen=True, kw_only=True):
    """Where batches are kept until the chain has them."""

    path: Text = "~/.dapi/outbox.db"
    """The database; one process at a time uses it."""
    reserve_bytes: ReserveBytes = DEFAULT_RESERVE_BYTES
    """The size of a file beside the database, which dapi deletes when the disk is full, to go on. The write-ahead log,
    4 MiB and the last commit have to fit into it. Making it needs twice the room."""
    keep_finished: Days = DEFAULT_KEEP_DAYS
    """For so many days dapi keeps a batch that is confirmed, failed or expired, and longer while it is of the epoch
    that runs or of the two before. After that, the batch is only counted."""
    max_node_messages: Count = _NODE_QUOTA.max_messages
    """So many messages of one node may wait for the chain, and be of one stage; more are refused, and the node tries
    again."""
    max_node_bytes: TotalBytes = _NODE_QUOTA.max_bytes
    """What they may take on the disk, about."""
    new_database: bool = False
    """For one start: make a new database in place of an empty file, which is left of a lost one and else stops the
    start."""


class WebSocketConfig(Struct, frozen=True, kw_only=True):
    """The connections to the ML nodes."""

    idle_seconds: Seconds = _WEBSOCKET.idle_seconds
    """A connection that brings no batch for so long, while its node should send, is replaced."""
    max_message_bytes: MessageBytes = _WEBSOCKET.max_message_bytes
    """A larger message is refused with 1009, and its batch comes by HTTP (32 MiB at most)."""
    compression: bool = _WEBSOCKET.compression
    """Whether dapi offers permessage-deflate."""


class TlsConfig(Struct, frozen=True, kw_only=True):
    """TLS of dapi's two ports, and how ML nodes that are reached over https and wss are checked."""

    certificate: Text | None = None
    """PEM file of the certificate that both ports show, with those of its authorities after it. They speak HTTPS alone
    then. The files are read anew when they change."""
    key: Text | None = None
    """PEM file of the certificate's private key, without a password."""
    client_ca_file: Text | None = None
    """PEM file of authorities. With it, the callback port takes only clients that have a certificate of one of them."""
    ca_file: Text | None = _WEBSOCKET.ca_file
    """PEM file of the authorities that nodes, and the api container of PoC v2, are checked against; without it, those
    of the system. Its former name `websocket.ca_file` still works."""


class PocConfig(Struct, frozen=True, kw_only=True):
    """How the nodes do their proof of compute."""

    network: Literal["main", "test"] = "main"
    """The network whose model parameters an init carries."""
    follow_chain: bool = True
    """Whether dapi gives the nodes commands as the chain's phases demand. Where it is `false`, dapi also sends no seed,
    declares no nodes and claims no rewards."""


class PocV2Config(Struct, frozen=True, kw_only=True):
    """A network with PoC v2: see [poc-v2.md](poc-v2.md)."""

    relay: bool = False
    """Whether dapi keeps the callbacks of the nodes, and hands them on to the network's own api container."""
    api_url: HttpUrl = "http://api:9100"
    """The callback port of the api container, which gets them."""
    api_public_url: HttpUrl = "http://api:9000"
    """Its public port, which tells stages and what is counted."""
    api_admin_url: HttpUrl = "http://api:9200"
    """Its admin port, which tells the nodes."""
    watch: bool = False
    """Whether dapi watches from beside what of each stage is stored and committed."""
    chain_url: ChainUrls | None = None
    """With it, and the participant's address, the watch knows what the chain has committed."""
    participant: Text | None = None
    """That address."""
    hold_suspects: bool = True
    """Whether callbacks with nonces or vectors that no node makes are held."""


class LogConfig(Struct, frozen=True, kw_only=True):
    """What twistd writes into the log."""

    format: Literal["text", "json"] = "text"
    """`json`: each line of the log is a JSON object with `time`, `level`, `logger`, `message` and `fields`."""
    level: LogLevels = "info"
    """The lowest level that the log has; rooms may have others: `info,websocket=debug`."""


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
