"""The calls to the chain: each goes to the best of its nodes, and to the next one when that fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.web.iweb import IAgent

from dapi.chain.answer_reader import ValueReader
from dapi.chain.json_rpc import CallLimits, JsonRpc
from dapi.chain.nodes import ChainNode, ChainNodes, Standing
from dapi.chain.rpc_answers import (
    BlockAnswer,
    BlockDataAnswer,
    BlockInfo,
    BlockResultsAnswer,
    BlockTransactions,
    Broadcast,
    ChainStatus,
    CheckTxAnswer,
    QueryAnswer,
    QueryResult,
    RpcError,
    StatusAnswer,
    TxAnswer,
    TxLookups,
    TxResult,
)
from dapi.chain.rpc_errors import broadcast_outcome, error_of_call, failure_of_all, is_not_found, query_result
from dapi.chain.witness import Witness
from dapi.errors import ChainRefusedError, ChainStaleError, ChainUnavailableError, MempoolFullError
from dapi.messages.sizes import MIB
from dapi.timing.pool_thread import PoolThread
from dapi.timing.together import together

T = TypeVar("T")

_MAX_ANSWER_BYTES = MIB
# A block of 22 MB of transactions, in base64.
_MAX_LARGE_ANSWER_BYTES = 64 * MIB
# Two failed status calls take so long: one alone may be chance.
_LOOK_AT_NODE_SECONDS = 10.0
# Each has a connection of its own.
_LOOKUPS_AT_ONCE = 8
# Hashing more than this is left to a thread.
_MAX_BYTES_HASHED_AT_ONCE = MIB


class ChainRpc:
    """Calls to the chain's nodes: ``nodes`` are their URLs in order of preference, or what is known of them already.

    A call goes to the best node (see ChainNodes), and, when that does not answer, to the next one. At each node a small
    call may take ``timeout_seconds``; one that carries transactions may take ``large_timeout_seconds``.

    The Deferred of a call fails with ChainUnavailableError when no node was able to answer, and with ChainRefusedError
    when a node says no. Every call may be repeated, a broadcast of the same bytes too. ``agent`` replaces the network.
    """

    def __init__(
        self,
        reactor: Any,
        nodes: Sequence[str] | ChainNodes,
        *,
        agent: IAgent | None = None,
        timeout_seconds: float = 3,
        large_timeout_seconds: float = 10,
    ) -> None:
        self.nodes = nodes if isinstance(nodes, ChainNodes) else ChainNodes(reactor, nodes)
        self._reactor = reactor
        self._thread = PoolThread(reactor)
        self._json = JsonRpc(reactor, self.nodes, agent, timeout_seconds)
        self._small = CallLimits(timeout_seconds, _MAX_ANSWER_BYTES)
        self._large = CallLimits(max(timeout_seconds, large_timeout_seconds), _MAX_LARGE_ANSWER_BYTES)
        self._calls: set[Deferred[Any]] = set()
        self._is_closed = False

    # Status.

    def status(self) -> Deferred[ChainStatus]:
        """Fire with the status of the first node that is sound, or of one that is behind when there is no other."""
        return self._run(self._status())

    def ask_all(self) -> Deferred[None]:
        """Ask all nodes for their status at once, but those that are skipped; ``nodes`` is brought up to date by it.

        Fails only when no node tells its status: with ChainRefusedError when one of them refuses.
        """
        return self._run(self._ask_all())

    # Transactions.

    def broadcast_tx_sync(self, raw: bytes, *, turn: int = 0) -> Deferred[Broadcast]:
        """Offer an encoded TxRaw to a node's mempool; fires when CheckTx has passed it, or when it was there already.

        A node may take a transaction that never comes into a block, for example when it is cut off from the others.
        So who offers it again does so with another ``turn``: it then goes to the next sound node first, in a circle.

        Fails with ChainStaleError when the bytes have had their time, ChainRefusedError when a node's mempool refuses
        them (see its ``node``) that none can have had before, and ChainUnavailableError when they may be offered again:
        MempoolFullError when no mempool has room. A failure with ChainUnavailableError does not prove that no mempool
        has them.
        """
        may_be_known = False

        async def ask(node: ChainNode) -> Broadcast:
            nonlocal may_be_known
            try:
                return await self._broadcast(node, raw)
            except MempoolFullError:
                raise
            except ChainUnavailableError:
                may_be_known = True
                raise
            except ChainRefusedError as error:
                if not may_be_known:
                    raise
                # The node before may have taken it, and only its answer was lost: a refusal after that proves nothing.
                raise ChainUnavailableError(f"{error}, after another node gave no answer") from error

        return self._run(self._first_of(ask, turn))

    def broadcast_to(self, name: str, raw: bytes) -> Deferred[Broadcast]:
        """Offer an encoded TxRaw to the node with this name alone: to ask others after one has refused it.

        Fires and fails as ``broadcast_tx_sync`` does; ``usable_nodes`` has the names.
        """
        return self._run(self._first_of(partial(self._broadcast, raw=raw), name=name))

    def usable_nodes(self) -> list[str]:
        """Return the names of the nodes that answer, the best first."""
        return [node.name for node in self.nodes.in_order() if node.is_reachable]

    def lookup_all(self, tx_hashes: Collection[str]) -> Deferred[TxLookups]:
        """Look up transactions by their hashes in hex; fires with the asked node's status, too.

        Only both from the same node, which has an index, prove that a transaction is in no block.
        That one is in a block is believed when no other sound node denies it; see ``witness``.
        """
        return self._run(self._first_of(partial(self._look_up, tx_hashes=tx_hashes)))

    # Blocks and state.

    def abci_query(
        self, path: str, data: bytes, height: int | None = None, *, max_bytes: int = _MAX_LARGE_ANSWER_BYTES
    ) -> Deferred[QueryResult]:
        """Query the application: ``path`` like ``/cosmos.auth.v1beta1.Query/AccountInfo``, ``data`` encoded protobuf.

        ``height`` pins the state; None means the latest. ``max_bytes`` bounds the answer's JSON (4/3 of its value).
        Fails with ChainPrunedError when no node has the state of that height any more.
        """
        params = {"path": path, "data": data.hex(), "height": str(height or 0), "prove": False}
        limits = self._small._replace(max_bytes=max_bytes)

        async def ask(node: ChainNode) -> QueryResult:
            return query_result(_result(await self._json.call(node, "abci_query", params, QueryAnswer, limits)))

        return self._run(self._first_of(ask))

    def abci_query_in_pieces(
        self, path: str, data: bytes, height: int | None, make_reader: Callable[[], ValueReader[T]], *, max_bytes: int
    ) -> Deferred[T]:
        """Query the application, and have the value read as it comes: fires with what its reader made of it.

        Each node's answer is read by a new reader, on a thread. ``timeout_seconds`` is for the answer to begin, and
        then for each half MiB of it; a node that fails at other calls meanwhile is left sooner, if another is sound.
        Otherwise as ``abci_query``; fails with what the reader raises, too.
        """
        params = {"path": path, "data": data.hex(), "height": str(height or 0), "prove": False}
        limits = self._small._replace(max_bytes=max_bytes)

        async def ask(node: ChainNode) -> T:
            reader = make_reader()
            call = Deferred.fromCoroutine(self._json.call_in_pieces(node, "abci_query", params, reader, limits))
            query_result(_result(await self._unless_it_fails(node, call)))
            return await self._thread.run(reader.finish)

        return self._run(self._first_of(ask))

    def block(self, height: int) -> Deferred[BlockInfo]:
        """Fire with hash and time of the block at ``height``.

        Fails with ChainUnavailableError while no node has it, with ChainPrunedError when none has it any more.
        """

        async def ask(node: ChainNode) -> BlockInfo:
            return _result(await self._at(node, "block", height, BlockAnswer)).value()

        return self._run(self._first_of(ask))

    def block_transactions(self, height: int) -> Deferred[BlockTransactions]:
        """Fire with the hashes of the transactions in a block; fails as ``block`` does."""
        return self._run(self._first_of(partial(self._block_transactions, height=height)))

    def block_results(self, height: int, hashes: Mapping[int, str]) -> Deferred[list[TxResult]]:
        """Fire with the results of some transactions in a block: their hashes by their places in it.

        Fails with ChainPrunedError when no node has them any more, or not yet: they come a moment after the block.
        """

        async def ask(node: ChainNode) -> list[TxResult]:
            return _result(await self._at(node, "block_results", height, BlockResultsAnswer)).value(hashes)

        return self._run(self._first_of(ask))

    def close(self) -> Deferred[None]:
        """Cancel the calls that run and refuse all others; fires when no connection is left."""
        self._is_closed = True
        for call in self._calls.copy():
            call.cancel()
        return self._json.close()

    # One call.

    def _run(self, call: Coroutine[Any, Any, T]) -> Deferred[T]:
        if self._is_closed:
            call.close()
            return fail(ChainUnavailableError("dapi is stopping"))
        running: Deferred[T] = Deferred.fromCoroutine(call)
        self._calls.add(running)

        def forget(result: T) -> T:
            self._calls.discard(running)
            return result

        return running.addBoth(forget)

    async def _first_of(self, ask: Callable[[ChainNode], Awaitable[T]], turn: int = 0, *, name: str | None = None) -> T:
        """Ask one node after the other, the best first, until one answers; with a ``name``, that one alone."""
        failures: list[tuple[str, ChainUnavailableError]] = []
        for node in self.nodes.in_order(turn):
            if name is not None and node.name != name:
                continue
            try:
                return await ask(node)
            except ChainUnavailableError as error:
                failures.append((node.name, error))
            except (ChainRefusedError, ChainStaleError) as error:
                error.node = node.name
                raise
        if not failures:
            raise ChainUnavailableError(self.nodes.problem() or f"{name} is no node that may be asked")
        raise failure_of_all(failures)

    async def _unless_it_fails(self, node: ChainNode, call: Deferred[T]) -> T:
        """Wait for a long call; raises ChainUnavailableError when its node has failed meanwhile and another is sound.

        A node that hangs would be waited for as long as one that puts a large answer together.
        """

        def look() -> None:
            others = any(each is not node and each.standing is Standing.SOUND for each in self.nodes.in_order())
            if others and node.standing is Standing.FAILING:
                looking.stop()
                call.cancel()

        looking = LoopingCall(look)
        looking.clock = self._reactor
        looking.start(_LOOK_AT_NODE_SECONDS, now=False)
        try:
            return await call
        except CancelledError:
            if looking.running:
                raise
            raise ChainUnavailableError(f"failed meanwhile: {node.problem}") from None
        finally:
            if looking.running:
                looking.stop()

    async def _at(self, node: ChainNode, method: str, height: int, answer_type: type[T]) -> T | RpcError:
        return await self._json.call(node, method, {"height": str(height)}, answer_type, self._large)

    async def _status(self) -> ChainStatus:
        behind = None

        async def ask(node: ChainNode) -> ChainStatus:
            nonlocal behind
            status = await self._status_of(node)
            if node.standing is Standing.BEHIND:
                behind = behind or status
                raise ChainUnavailableError(f"is {node.problem}")
            return status

        try:
            return await self._first_of(ask)
        except ChainUnavailableError:
            if behind is None:
                raise
            return behind

    async def _status_of(self, node: ChainNode) -> ChainStatus:
        """Return a node's status, by which it is judged."""
        height, status = await self._fetch_status(node)
        self.nodes.status_received(node, height, status)
        if node.standing is Standing.OTHER_CHAIN:
            raise ChainUnavailableError(f"is of another chain: {node.problem}")
        return status

    async def _fetch_status(self, node: ChainNode) -> tuple[int, ChainStatus]:
        """Return a node's status, and before it the height that was known when it was asked."""
        height = self.nodes.latest.height if self.nodes.latest is not None else 0
        try:
            answer = _result(await self._json.call(node, "status", {}, StatusAnswer, self._small))
            return height, answer.value(node.name)
        except (ChainUnavailableError, ChainRefusedError) as error:
            self.nodes.call_failed(node, "status", str(error))
            raise

    async def _ask_all(self) -> None:
        # The first URL that answers decides which chain it is, however fast the others are.
        is_first = self.nodes.latest is None
        due = self.nodes.due()
        answers: dict[ChainNode, tuple[int, ChainStatus]] = {}
        errors: dict[ChainNode, ChainUnavailableError | ChainRefusedError] = {}

        async def ask(node: ChainNode) -> None:
            try:
                answers[node] = await self._fetch_status(node)
            except (ChainUnavailableError, ChainRefusedError) as error:
                errors[node] = error
                return
            if not is_first:
                self.nodes.status_received(node, *answers[node])

        await together(partial(ask, node) for node in due)
        if is_first:
            for node in due:
                if node in answers:
                    self.nodes.status_received(node, *answers[node])
        if not answers:
            refusals = [error for error in errors.values() if isinstance(error, ChainRefusedError)]
            raise refusals[0] if refusals else failure_of_all([(node.name, errors[node]) for node in due])

    async def _broadcast(self, node: ChainNode, raw: bytes) -> Broadcast:
        params = {"tx": raw}
        return broadcast_outcome(await self._json.call(node, "broadcast_tx_sync", params, CheckTxAnswer, self._large))

    async def _look_up(self, node: ChainNode, tx_hashes: Collection[str]) -> TxLookups:
        status = await self._status_of(node)
        if not status.has_tx_index:
            raise ChainUnavailableError("transaction indexing is disabled")
        calls = [partial(self._tx, node, tx_hash) for tx_hash in tx_hashes]
        results = await together(calls, at_once=_LOOKUPS_AT_ONCE)
        found = {tx_hash: result for tx_hash, result in zip(tx_hashes, results, strict=True) if result is not None}
        return await self._hear_another(node, TxLookups(status, found))

    async def _hear_another(self, node: ChainNode, lookups: TxLookups) -> TxLookups:
        """Return of what a node has told what another sound one does not deny."""
        others = [other for other in self.nodes.in_order() if other is not node]
        for other in others if lookups.results else ():
            if other.standing is not Standing.SOUND or other.has_tx_index is False:
                continue
            asks = partial(self._tx, other), partial(self._hashes_in_block, other)
            try:
                witness = Witness(await self._status_of(other), *asks)
                if other.standing is Standing.SOUND:
                    return await witness.heard_on(lookups)
            except (ChainUnavailableError, ChainRefusedError, ChainStaleError):
                continue
        return lookups

    async def _hashes_in_block(self, node: ChainNode, height: int) -> list[str]:
        return (await self._block_transactions(node, height)).hashes

    async def _block_transactions(self, node: ChainNode, height: int) -> BlockTransactions:
        answer = _result(await self._at(node, "block", height, BlockDataAnswer))
        if answer.size <= _MAX_BYTES_HASHED_AT_ONCE:
            return answer.value()
        return await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), answer.value)

    async def _tx(self, node: ChainNode, tx_hash: str) -> TxResult | None:
        params = {"hash": bytes.fromhex(tx_hash), "prove": False}
        answer = await self._json.call(node, "tx", params, TxAnswer, self._large)
        if isinstance(answer, RpcError) and is_not_found(answer):
            return None
        return _result(answer).value()


def _result(answer: T | RpcError) -> T:
    if isinstance(answer, RpcError):
        raise error_of_call(answer)
    return answer
