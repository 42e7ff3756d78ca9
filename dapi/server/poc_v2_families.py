"""The metrics of PoC v2: what the relay hands on, and what of the stage is stored and committed. Pure.

The label ``model`` has the models of the host's own nodes, 16 at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
from prometheus_client import Metric

from dapi.server.metric_tools import HistogramSample, Rows, counter, gauge, histogram, known

_MAX_MODELS = 16
STATES = ("kept", "doubled", "taken", "settled", "sent_again", "held", "refused_as_too_much", "set_aside", "late")
"""What the relay counts of callbacks; one may come to several of these, and to some of them again."""


class RelaySample(msgspec.Struct, frozen=True):
    """What the relay has counted since its start, and what it holds now.

    ``answer_seconds`` is from the last byte of a callback to its 200, ``forward_seconds`` to the container's.
    """

    counts: Mapping[str, int]
    waiting: int
    unsettled: int
    held: int
    bytes: int
    passed_on: int
    refused: int
    api_restarts: int
    away_seconds: float
    answer_seconds: HistogramSample
    forward_seconds: HistogramSample


class ModelSample(msgspec.Struct, frozen=True):
    """What is known of the newest stage of one model; None: not known."""

    stored: int | None = None
    committed: int | None = None
    participants: int | None = None
    votes: int | None = None


class StageSample(msgspec.Struct, frozen=True):
    """The stage that began last, by model. ``blocks_left`` is until no artifact is taken any more, None after that."""

    models: Mapping[str, ModelSample]
    height: int | None = None
    blocks_left: int | None = None


def poc_v2(relay: RelaySample | None, stage: StageSample | None) -> Iterator[Metric]:
    """Yield the families; without a relay, or a watch, theirs have no samples."""
    yield from _relay(relay)
    yield from _stage(stage)


def _relay(relay: RelaySample | None) -> Iterator[Metric]:
    rows: Rows = () if relay is None else [(state, relay.counts.get(state, 0)) for state in STATES]
    yield counter("dapi_relay_callbacks", "Callbacks of PoC v2, by what became of them", ["state"], rows)
    for name, text in (
        ("waiting", "Callbacks that are to be handed on"),
        ("unsettled", "Callbacks that were answered with 200, and are not counted yet"),
        ("held", "Callbacks that must not be handed on"),
        ("bytes", "The size of all bodies that are kept"),
        ("away_seconds", "For how long the api container cannot be reached, 0 while it can"),
    ):
        yield gauge(f"dapi_relay_{name}", text, [], known(getattr(relay, name) if relay is not None else None))
    for name, text in (
        ("passed_on", "Callbacks that were handed on there and then, and not kept"),
        ("refused", "Requests without the right prefix"),
        ("api_restarts", "How often the api container was started anew"),
    ):
        yield counter(f"dapi_relay_{name}", text, [], known(getattr(relay, name) if relay is not None else None))
    for name, text in (
        ("answer_seconds", "From the last byte of a callback to its 200"),
        ("forward_seconds", "From the last byte of a callback to the container's 200"),
    ):
        yield histogram(f"dapi_relay_{name}", text, [], () if relay is None else [(getattr(relay, name),)])


def _stage(stage: StageSample | None) -> Iterator[Metric]:
    height, left = (stage.height, stage.blocks_left) if stage is not None else (None, None)
    yield gauge("dapi_poc_v2_height", "The latest block that the api container knows", [], known(height))
    text = "Blocks until the stage takes no artifact any more; only while it does"
    yield gauge("dapi_poc_v2_blocks_left", text, [], known(left))
    models = list(stage.models.items())[:_MAX_MODELS] if stage is not None else []
    for name, text in (
        ("stored", "Artifacts of the newest stage on the api container's disk"),
        ("committed", "Artifacts of the newest stage that the chain has a commit of"),
        ("participants", "Participants with a commit in the newest stage"),
        ("votes", "Participants of the newest stage on whom there is our vote"),
    ):
        rows = [(model, value) for model, sample in models if (value := getattr(sample, name)) is not None]
        yield gauge(f"dapi_poc_v2_{name}", text, ["model"], rows)
