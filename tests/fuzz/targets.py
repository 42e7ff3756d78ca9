"""Each target takes any bytes, and fails with anything but the errors that its decoder promises."""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from dapi.broker.nodes import decode_node_configs
from dapi.chain.answer_reader import AnswerReader
from dapi.chain.keyring import load_signing_key, load_signing_key_file
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import (
    BlockAnswer,
    BlockDataAnswer,
    BlockResultsAnswer,
    CheckTxAnswer,
    QueryAnswer,
    QueryResult,
    RpcError,
    StatusAnswer,
    TxAnswer,
    decode_answer,
    decode_block_event,
)
from dapi.chain.rpc_errors import broadcast_outcome, error_of_call, query_result
from dapi.config import load_config
from dapi.errors import ChainError, ConfigError, MessageError, StartError
from dapi.http.site import JsonSite
from dapi.messages import ProofBatch, content_id, decode_envelope, decode_generated, decode_validated, encode_ack
from dapi.orchestration.samples import Sampler, Sampling
from dapi.phases.epoch_queries import epoch_info
from dapi.phases.host_queries import hardware_nodes, known_models, member_weight, mlnode_version, owed_rewards
from dapi.phases.stage_queries import preserved_nodes
from dapi.relay.answers import judge
from dapi.relay.api_answers import ApiAnswerError, read_count, read_epochs, read_nodes, read_start_time
from dapi.relay.facts import read_target
from dapi.relay.scan import Scan, read_whole
from tests.unit.http.connections import Echo, Transport

_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_PIECE = 7


class _PlainBatch(msgspec.Struct):
    """A generated batch as msgspec alone reads it."""

    public_key: str
    block_hash: str
    block_height: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    nonces: list[_Int64]
    dist: list[float]
    node_id: _Int64


def _plain(data: bytes) -> ProofBatch | None:
    """Read a generated batch by msgspec alone; None when it is none."""
    try:
        data.decode()
        plain = msgspec.json.decode(data, type=_PlainBatch)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if len(plain.nonces) != len(plain.dist) or not all(map(math.isfinite, plain.dist)):
        return None
    fields = (plain.public_key, plain.block_hash, plain.block_height, plain.nonces, plain.dist, plain.node_id)
    return ProofBatch(*fields)


def generated(data: bytes) -> None:
    """The body of a callback; it has to be read as msgspec alone reads it."""
    expected = _plain(data)
    try:
        batch = decode_generated(data)
    except MessageError:
        assert expected is None, "refused, and msgspec takes it"
        return
    # JSON does not have these, and a node writes them: then msgspec alone does not read it.
    if expected is None:
        assert b"NaN" in data or b"Infinity" in data, "taken, and msgspec refuses it"
        return
    assert content_id(batch) == content_id(expected)


def validated(data: bytes) -> None:
    """The body of a callback with a verdict."""
    with contextlib.suppress(MessageError):
        batch = decode_validated(data)
        content_id(batch)
        batch.has_nan()


def envelope(data: bytes) -> None:
    """A message over the WebSocket; what is taken can be acknowledged."""
    with contextlib.suppress(MessageError):
        message = decode_envelope(data)
        content_id(message.batch)
        assert json.loads(encode_ack(message.id)) == {"type": "ack", "id": message.id}


def http(data: bytes) -> None:
    """What comes over an HTTP connection, in two pieces, and then nothing more."""
    clock = Clock()
    connection = Transport(JsonSite(clock, Echo()))
    for piece in (data[:_PIECE], data[_PIECE:]):
        if connection.is_open and not connection.disconnecting:
            connection.send(piece)
    clock.advance(120)
    connection.lose()
    clock.advance(120)
    assert not clock.getDelayedCalls(), "something of the connection is left"


def http_target(data: bytes) -> None:
    """The target of a request to the relay."""
    read_target(data)


def relayed_body(data: bytes) -> None:
    """A body that the relay looks through: what is not suspicious is the same, whole, in pieces and as columns."""
    whole, pieces = Scan(), Scan()
    whole.feed(data)
    for begin in range(0, len(data), 1000):
        pieces.feed(data[begin : begin + 1000])
    of_whole, of_pieces = whole.facts(), pieces.facts()
    if of_whole.suspicion is None and of_pieces.suspicion is None:
        assert of_whole == of_pieces
    if (facts := read_whole(data)) is not None:
        assert facts == of_whole


def api_answers(data: bytes) -> None:
    """What the network's own container answers."""
    for read in (read_epochs, read_nodes, read_count, read_start_time):
        with contextlib.suppress(ApiAnswerError):
            read(data)
    for status in (200, 400, 503):
        judge(status, data, is_callback=True)


def rpc_answers(data: bytes) -> None:
    """The body of an answer to each call."""
    uses: dict[type[Any], Callable[[Any], object]] = {
        StatusAnswer: lambda answer: answer.value("node"),
        CheckTxAnswer: broadcast_outcome,
        QueryAnswer: query_result,
        TxAnswer: lambda answer: answer.value(),
        BlockAnswer: lambda answer: answer.value(),
        BlockDataAnswer: lambda answer: answer.value(),
        BlockResultsAnswer: lambda answer: answer.value({0: "AB"}),
    }
    for answer_type, use in uses.items():
        with contextlib.suppress(ChainError):
            answer = decode_answer(data, 1, answer_type)
            if isinstance(answer, RpcError):
                error_of_call(answer)
                broadcast_outcome(answer)
            else:
                use(answer)


def rpc_answer_in_pieces(data: bytes) -> None:
    """The answer to a query that is read as it comes, cut anywhere."""
    outcomes = [_read_in_pieces(data, size) for size in (len(data) or 1, _PIECE)]
    assert outcomes[0] == outcomes[1], "it depends on where it is cut"


def _read_in_pieces(data: bytes, size: int) -> object:
    received = bytearray()

    class Value:
        def feed(self, piece: bytes) -> None:
            received.extend(piece)

        def finish(self) -> None:
            """Nothing to return."""

    reader = AnswerReader(1, Value())
    try:
        for begin in range(0, len(data), size):
            reader.feed(data[begin : begin + size])
        reader.finish()
    except ChainError:
        return None
    return bytes(received)


def block_event(data: bytes) -> None:
    """A message of the chain's WebSocket."""
    with contextlib.suppress(ChainError):
        decode_block_event(data)


class _SameAnswer(ChainRpc):
    """A chain that gives the same bytes to each query."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def abci_query(
        self, path: str, data: bytes, height: int | None = None, *, max_bytes: int = 0
    ) -> Deferred[QueryResult]:
        return succeed(QueryResult(self._value, 10))


def protobuf_answers(data: bytes) -> None:
    """The values of all small queries."""
    rpc = _SameAnswer(data)
    queries = (
        epoch_info(rpc, 10),
        preserved_nodes(rpc, 1, "address"),
        hardware_nodes(rpc, "address", 10),
        known_models(rpc, 10),
        owed_rewards(rpc, "address", 10),
        member_weight(rpc, 1, "address", 10),
        mlnode_version(rpc, 10),
    )
    for query in queries:
        results: list[Any] = []
        Deferred.fromCoroutine(query).addBoth(results.append)
        error = getattr(results[0], "value", None)
        if isinstance(error, BaseException) and not isinstance(error, ChainError):
            raise error


def batches_of_stage(data: bytes) -> None:
    """Everybody's batches, as a protobuf row of fields, cut anywhere."""
    found = []
    for size in (len(data) or 1, _PIECE):
        sampler = Sampler(Sampling(public_key="02" * 33, block_hash="AB", block_height=10, size=3, secret=b"secret"))
        try:
            for begin in range(0, len(data), size):
                sampler.feed(data[begin : begin + size])
            found.append([batch.nonces for batch in sampler.finish().batches])
        except ChainError:
            found.append([])
    assert found[0] == found[1], "it depends on where it is cut"


def keyring(data: bytes) -> None:
    """A file of the keyring, and a file with a key."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "keyring-test"
        folder.mkdir()
        path = folder / "warm.info"
        path.write_bytes(data)
        path.chmod(0o600)
        with contextlib.suppress(StartError):
            load_signing_key("test", name, "warm", None)
        with contextlib.suppress(StartError):
            load_signing_key_file(str(path))


def configuration(data: bytes) -> None:
    """config.yaml, and node-config.json."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with contextlib.suppress(ConfigError):
            load_config(file.name)
        with contextlib.suppress(ConfigError):
            load_config(node_config_path=file.name)


def nodes(data: bytes) -> None:
    """The nodes that an admin gives."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    with contextlib.suppress(ConfigError):
        decode_node_configs(value)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        generated,
        validated,
        envelope,
        http,
        http_target,
        relayed_body,
        api_answers,
        rpc_answers,
        rpc_answer_in_pieces,
        block_event,
        protobuf_answers,
        batches_of_stage,
        keyring,
        configuration,
        nodes,
    )
}
