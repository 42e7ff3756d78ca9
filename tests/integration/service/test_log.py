"""What the log has of a whole stage: one line for each event, and none for what was planned."""

from __future__ import annotations

import re

import pytest_twisted
from twisted.logger import LogLevel, formatEvent

from tests.integration.waiting import until
from tests.integration.whole_dapi import FIRST_POC, VALIDATION_END, WholeDapi, when_all_is_delivered, whole
from tests.logs import Log

__all__ = ["whole"]

SUMMARY = re.compile(
    r"(?P<node>\w+): stage 6: (?P<batches>\d+) batches with (?P<nonces>\d+) nonces are on disk, from (?P<all>\d+) "
    r"deliveries: (?P<ws>\d+) over the WebSocket, (?P<http>\d+) by HTTP, (?P<doubled>\d+) of them doubled; .* \d+ ms"
)


@pytest_twisted.ensureDeferred
async def test_a_stage(whole: WholeDapi, log: Log) -> None:
    whole.node("node1", double_every=3)
    whole.node("node2", websocket=False)
    service = whole.start()
    await whole.when_all(None)
    whole.produce_to(FIRST_POC + 1)
    await whole.when_all("generate")
    await until(lambda: all(len(node.ledger.delivered(kind="generated")) > 5 for node in whole.nodes.values()))
    # What is under way in a jump would expire.
    for node in whole.nodes.values():
        node.settings.batches_per_walk = 0
        await when_all_is_delivered(node)
    await whole.when_nothing_is_left()
    before = len(log.lines(containing="switched to inference"))
    whole.produce_to(VALIDATION_END)
    await until(lambda: len(log.lines(containing="are on disk")) == 2)
    await until(lambda: len(log.lines(containing="switched to inference")) > before)
    # As many lines of each kind as there are events.
    infos = log.lines(LogLevel.info)
    assert len([line for line in infos if "stage 6: switched to generation: 2 nodes (" in line]) == 1, infos
    assert len([line for line in infos if "begin to arrive" in line]) == 2
    for name in ("node1", "node2"):
        (line,) = [line for line in infos if line.startswith(f"{name}: stage 6: ")]
        found = SUMMARY.fullmatch(line)
        assert found is not None, line
        batches, nonces, deliveries, by_websocket, by_http, doubled = map(int, found.groups()[1:])
        assert batches + doubled == by_websocket + by_http == deliveries
        assert nonces == 5 * batches
        assert (by_websocket == 0) is (name == "node2")
    # What these nodes lack, and that nobody is there to find the batches valid; nothing else is worth a warning.
    expected = re.compile("no WebSocket to|confirmed but not counted|answers 404 below|by the wall clock")
    assert [line for line in log.warnings() if not expected.search(line)] == []
    # The simulator and Twisted have lines of their own.
    for event in log.events:
        if not re.match(r"dapi\.(?!simulator\b)", event["log_namespace"]):
            continue
        line = formatEvent(event)
        assert not re.search(r"<\w+[ .]|\b[bf]'|\bNone\b|object at 0x|\w\(\w+=", line), line
    assert service.running
