"""A node's HTTP API, as one class of calls.

Whatever is not the documented answer of a call is an MLNodeError, so that a proxy's error page, or a refusal (409, 422,
…), is never taken for a success. Fact: docs/protocol/node.md, 'HTTP API'.
"""

from __future__ import annotations

import enum
from operator import attrgetter
from typing import Any, Final, Literal, TypeVar

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IAgent

from dapi.errors import MLNodeError
from dapi.http.exchange import AnswerTooLongError, Exchanges, NoAnswerError
from dapi.http.headers_file import HeadersFile
from dapi.messages import ProofBatch
from dapi.messages.printable import printable, without_tokens
from dapi.mlnode.arguments import NetworkArguments

BATCH_SIZE: Final = 100
R_TARGET: Final = 1.4013564660458173
FRAUD_THRESHOLD: Final = 1e-7

_CONNECT_TIMEOUT_SECONDS = 10.0
# The node itself gives up after 1200 s.
_INFERENCE_UP_TIMEOUT_SECONDS = 1200.0
# As the network's own software does.
_STOP_FORMER_SECONDS = 10.0
_SHOWN_CHARACTERS = 200
_STATE = "state"

T = TypeVar("T")


class MLNodeState(enum.StrEnum):
    """What a node does, as ``GET /api/v1/state`` tells it."""

    POW = "POW"
    INFERENCE = "INFERENCE"
    TRAIN = "TRAIN"
    STOPPED = "STOPPED"


class PowState(enum.StrEnum):
    """What a node's proof of work does."""

    IDLE = "IDLE"
    NOT_LOADED = "NOT_LOADED"
    LOADING = "LOADING"
    GENERATING = "GENERATING"
    VALIDATING = "VALIDATING"
    STOPPED = "STOPPED"
    MIXED = "MIXED"


class PowStatus(msgspec.Struct, frozen=True):
    """A node's proof of work; ``is_model_initialized`` is None where the node does not say (NOT_LOADED)."""

    status: PowState
    is_model_initialized: bool | None = None


class PowParams(msgspec.Struct, frozen=True, kw_only=True):
    """The model that a network's proof of work runs."""

    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int = 8196
    ffn_dim_multiplier: float = 10.0
    multiple_of: int
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    use_scaled_rope: bool = False
    seq_len: int


MAIN_NETWORK_PARAMS: Final = PowParams(dim=1792, n_layers=64, n_heads=64, n_kv_heads=64, multiple_of=8192, seq_len=256)
TEST_NETWORK_PARAMS: Final = PowParams(dim=1024, n_layers=32, n_heads=32, n_kv_heads=32, multiple_of=2048, seq_len=128)


class InitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What an init tells a node about a stage. Fact: docs/protocol/node.md, 'Init request'.

    ``block_hash`` is the text that seeds the node's computation, so its case matters; ``public_key`` is hex. A node
    numbers its nonces by ``node_num`` and ``node_count``, which is the highest number ever given + 1, and appends
    ``/generated`` and ``/validated`` to ``url``. An init equal to the running one only switches between generating and
    validating; any difference restarts the node's proof of work.
    """

    block_hash: str
    block_height: int
    public_key: str
    batch_size: int = BATCH_SIZE
    r_target: float = R_TARGET
    fraud_threshold: float = FRAUD_THRESHOLD
    params: PowParams
    node_num: int = msgspec.field(name="node_id")
    node_count: int
    url: str


class InferenceRequest(msgspec.Struct, frozen=True):
    """What a node is to serve."""

    model: str
    additional_args: tuple[str, ...]
    dtype: str = "float16"


class InferenceUpState(enum.StrEnum):
    """How far a node is with bringing inference up, as ``GET /api/v1/inference/up/status`` tells it."""

    NOT_STARTED = "not_started"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


class InferenceUpStatus(msgspec.Struct, frozen=True):
    """How far a node is with bringing inference up; ``error`` says why it failed."""

    status: InferenceUpState
    error: str | None = None


class _StateAnswer(msgspec.Struct, frozen=True):
    state: MLNodeState


class _OkAnswer(msgspec.Struct, frozen=True):
    status: Literal["OK"]


class _PowAnswer(msgspec.Struct, frozen=True):
    status: Literal["OK"]
    pow_status: PowStatus


class NetworkVersion:
    """The prefix below which the network's nodes answer, without slashes; empty: none. All clients share it."""

    def __init__(self, value: str = "") -> None:
        self.value = value


class MLNodeClient:
    """Calls one node.

    ``base_url`` is ``http://HOST:POC_PORT[/VERSION][POC_SEGMENT]``. ``network_version`` stands before the path of each
    call, unless the node answers 404 there and 200 without it. Each ``state`` finds that out anew, and so does each
    call that is answered 404: a proxy may get the version, or lose it, at any time. When a node answers below another
    version than before, and is stopped there, what runs below the one before is stopped, too: it is another process.

    Every call's Deferred fails with MLNodeError when the node cannot be reached within 10 s, has not answered wholly
    within ``total_timeout_seconds`` (``inference_up``: 1200 s), answers another status than 2xx (redirects are not
    followed: the call would arrive as another one), or answers something else than the documented answer. Cancelling
    the Deferred closes the call's connection; it then fails with CancelledError.

    ``ca_file`` is the PEM file of the authorities that an https node is checked against, None for the system's; with a
    ``fingerprint`` the node has to show the certificate with that SHA-256. ConfigError when they cannot be used.
    ``headers`` go along with each call.

    Each call has a connection of its own: the node may close a kept one just when the next call is written, and a call
    such as init must not be sent twice.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        base_url: str,
        *,
        node_id: str,
        network_version: NetworkVersion | None = None,
        network_arguments: NetworkArguments | None = None,
        agent: IAgent | None = None,
        total_timeout_seconds: float = 30.0,
        ca_file: str | None = None,
        fingerprint: str | None = None,
        headers: HeadersFile | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.node_id = node_id
        self._reactor = reactor
        self._exchanges = Exchanges(
            reactor, agent, _CONNECT_TIMEOUT_SECONDS, ca_file=ca_file, fingerprint=fingerprint, headers=headers
        )
        self._total_timeout_seconds = total_timeout_seconds
        # Few at a time.
        self._calls: list[Deferred[Any]] = []
        self._network_version = network_version or NetworkVersion()
        self._network_arguments = network_arguments or NetworkArguments()
        # What the node answers 404 below; and what was said of that.
        self._unserved_version = ""
        self._said: str | None = None
        # Below which it has answered last.
        self._served_version = ""

    @property
    def version(self) -> str:
        """The prefix that calls have now beside that of ``base_url``, empty for none."""
        version = self._network_version.value
        return version if version != self._unserved_version else ""

    @property
    def version_problem(self) -> str | None:
        """Why calls have no prefix where the network has one, None where they have it."""
        version = self._network_version.value
        if not version or version != self._unserved_version:
            return None
        return f"answers 404 below /{version}, and is used without that"

    def state(self) -> Deferred[MLNodeState]:
        """Ask what the node does, and with which prefix it answers."""
        return self._call("GET", _STATE, _StateAnswer).addCallback(attrgetter("state"))

    def stop(self) -> Deferred[None]:
        """Stop whatever the node runs; takes 5 s and more when something runs."""
        return self._call("POST", "stop", _OkAnswer).addCallback(lambda _answer: None)

    def pow_status(self) -> Deferred[PowStatus]:
        """Ask what the node's proof of work does; a node that runs something else refuses (409)."""
        return self._call("GET", "pow/status", PowStatus)

    def init_generate(self, request: InitRequest) -> Deferred[PowStatus]:
        """Have the node generate; fires before its model is loaded."""
        return self._init("pow/init/generate", request)

    def init_validate(self, request: InitRequest) -> Deferred[PowStatus]:
        """Have the node validate the batches that ``validate`` brings; fires before its model is loaded."""
        return self._init("pow/init/validate", request)

    def validate(self, batch: ProofBatch) -> Deferred[None]:
        """Bring the node another participant's batch; its verdict comes over the WebSocket or HTTP.

        A single distance of ``r_target`` or more kills the node's sender for good: filter before.
        """
        return self._call("POST", "pow/validate", None, batch)

    def inference_up(self, model: str, additional_args: tuple[str, ...] = ()) -> Deferred[None]:
        """Have the node serve a model; fires when it does, which may take minutes.

        The arguments are the host's own, which come behind those of the network.
        """
        request = self._inference_request(model, additional_args)
        return self._call("POST", "inference/up", Any, request, timeout_seconds=_INFERENCE_UP_TIMEOUT_SECONDS)

    def inference_up_async(self, model: str, additional_args: tuple[str, ...] = ()) -> Deferred[None]:
        """Have the node begin to serve a model; a node that has only ``inference_up`` refuses with 404 or 405."""
        return self._call("POST", "inference/up/async", Any, self._inference_request(model, additional_args))

    def _inference_request(self, model: str, own: tuple[str, ...]) -> InferenceRequest:
        return InferenceRequest(model, self._network_arguments.merged(model, own))

    def inference_up_status(self) -> Deferred[InferenceUpStatus]:
        """Ask how far ``inference_up_async`` is."""
        return self._call("GET", "inference/up/status", InferenceUpStatus)

    def inference_health(self, inference_url: str) -> Deferred[None]:
        """Fire when the inference that the node serves at this base is healthy; else the node refuses (503)."""
        return self._call("GET", "health", Any, url=inference_url.rstrip("/") + "/health")

    def close(self) -> Deferred[None]:
        """Cancel the calls under way; fires when no connection is left. Calls can be made again afterwards."""
        for call in self._calls.copy():
            call.cancel()
        return self._exchanges.close()

    def _init(self, call: str, request: InitRequest) -> Deferred[PowStatus]:
        return self._call("POST", call, _PowAnswer, request).addCallback(attrgetter("pow_status"))

    def _call(
        self,
        method: str,
        call: str,
        answer: Any,
        body: msgspec.Struct | None = None,
        *,
        url: str | None = None,
        timeout_seconds: float | None = None,
    ) -> Deferred[Any]:
        """Make a call; fires with its answer, decoded as ``answer`` (Any: None, and the answer is not looked at)."""
        seconds = self._total_timeout_seconds if timeout_seconds is None else timeout_seconds

        def timed_out(result: object, _seconds: float) -> Failure:
            return Failure(MLNodeError(self.node_id, call, f"no complete answer within {seconds:g} s"))

        def forget(result: T) -> T:
            self._calls.remove(calling)
            return result

        calling = Deferred.fromCoroutine(
            self._answer(method, call, answer, body, url=url or f"{self.base_url}/api/v1/{call}")
        )
        calling.addTimeout(seconds, self._reactor, timed_out)
        self._calls.append(calling)
        return calling.addBoth(forget)

    async def _answer(self, method: str, call: str, answer: Any, body: msgspec.Struct | None, *, url: str) -> Any:
        encoded = None if body is None else msgspec.json.encode(body)
        if call == _STATE:
            status, received = await self._find_version()
        else:
            version = self.version
            status, received = await self._exchange(method, call, _below(url, version), encoded)
            if status == 404 and self._network_version.value:
                await self._find_version()
                if self.version != version:
                    status, received = await self._exchange(method, call, _below(url, self.version), encoded)
        if not 200 <= status < 300:
            raise MLNodeError(self.node_id, call, "refused", status, _shown(received))
        if answer is Any:
            return None
        try:
            return msgspec.json.decode(received, type=answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MLNodeError(
                self.node_id, call, f"not the documented answer: {printable(str(error))}", status, _shown(received)
            ) from error

    async def _find_version(self) -> tuple[int, bytes]:
        """Ask for the state to find out whether the node answers below the version; return its answer."""
        version, url = self._network_version.value, f"{self.base_url}/api/v1/{_STATE}"
        status, received = await self._exchange("GET", _STATE, _below(url, version), None)
        if version and status == 404:
            without = await self._exchange("GET", _STATE, url, None)
            if without[0] == 200:
                self._unserved_version = version
                status, received = without
        elif version and status == 200:
            self._unserved_version = ""
            former, self._served_version = self._served_version, version
            if former not in ("", version) and _is_stopped(received):
                await self._stop_former(former)
        problem = self.version_problem
        if problem is not None and problem != self._said:
            self._said = problem
            self.log.warn("{node_id}: {problem}", node_id=self.node_id, problem=problem)
        return status, received

    async def _stop_former(self, former: str) -> None:
        """Stop what the node runs below the version before, once: it may hold the devices that this one needs."""
        url = _below(f"{self.base_url}/api/v1/stop", former)
        stopping = Deferred.fromCoroutine(self._exchange("POST", "stop", url, None))
        try:
            status, _ = await stopping.addTimeout(_STOP_FORMER_SECONDS, self._reactor)
            outcome = f"answered {status}"
        except (MLNodeError, DeferredTimeoutError):
            outcome = "did not answer"
        text = "{node_id}: below /{version} now; what ran below /{former} was told to stop, and {outcome}"
        self.log.info(text, node_id=self.node_id, version=self.version, former=former, outcome=outcome)

    async def _exchange(self, method: str, call: str, url: str, encoded: bytes | None) -> tuple[int, bytes]:
        try:
            return await self._exchanges.exchange(method, url, encoded)
        except AnswerTooLongError as error:
            raise MLNodeError(self.node_id, call, str(error), error.status, _shown(error.begin)) from error
        except NoAnswerError as error:
            raise MLNodeError(self.node_id, call, str(error)) from error


def _is_stopped(body: bytes) -> bool:
    """Tell whether the answer to ``state`` says that the node does nothing."""
    try:
        return msgspec.json.decode(body, type=_StateAnswer).state is MLNodeState.STOPPED
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def _below(url: str, version: str) -> str:
    """Return the URL with a prefix before its path."""
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    return f"{scheme}://{authority}/{version}/{path}" if version else url


def _shown(body: bytes) -> str:
    """Return the beginning of a body as one line that a log can hold."""
    # A node may quote the init that it refuses.
    text = without_tokens(body[: 4 * _SHOWN_CHARACTERS].decode("utf-8", "replace"))
    return "".join(c if c.isprintable() else " " for c in text)[:_SHOWN_CHARACTERS]
