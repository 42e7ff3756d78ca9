"""``GET /metrics``: what it shows of a snapshot, and how a scrape is made."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from dapi.diagnosis.catalogue import ProblemId, Severity
from dapi.http.answers import new_app
from dapi.http.routes import add_routes
from dapi.messages import Kind, State
from dapi.outbox.counts import Counts
from dapi.phases.phases import Phase
from dapi.poc.batch_handler import BatchCounts, WayCounts
from dapi.poc.message_intake import MessageCounts
from dapi.server.metric_families import ChainSample, PhaseSample, PortSample, Snapshot
from dapi.server.metric_tools import HistogramSample
from dapi.server.metrics import Metrics
from dapi.server.poc_v2_families import ModelSample, StageSample
from dapi.timing.histogram import Histogram
from dapi.websocket.client import WebSocketState
from tests.metric_samples import Series, node_sample, relay_sample, series_of, snapshot, value_of
from tests.unit.server.resource_client import ResourceClient
from tests.unit.threadless import ThreadlessReactor


class MetricsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = ThreadlessReactor()
        self.taken: Deferred[Snapshot] = succeed(snapshot())
        self.number = 0
        self.metrics = Metrics(self.reactor, self.take)

    def take(self) -> Deferred[Snapshot]:
        self.number += 1
        return self.taken

    def scraped(self, taken: Snapshot) -> dict[Series, float]:
        self.taken = succeed(taken)
        return series_of(self.successResultOf(self.metrics.text()))


class FamilyTests(MetricsTestCase):
    """Each part of a snapshot, under its name."""

    def test_nodes(self) -> None:
        node = node_sample(
            "a",
            websocket=WebSocketState.REFUSED,
            interruptions={"http_404": 3},
            over_websocket=WayCounts(1, 10, 2, 20),
            by_http=WayCounts(3, 30),
            batches=BatchCounts(doubled=4),
            messages=MessageCounts(bad_messages=5, not_stored=6, errors=7),
            has_problem=True,
            silent_seconds=61.5,
        )
        found = self.scraped(snapshot(nodes=[node, node_sample("b", is_enabled=False)], unnamed=WayCounts(0, 0, 8, 80)))
        for name, labels, value in (
            ("dapi_node_enabled", {"node_id": "a"}, 1),
            ("dapi_node_enabled", {"node_id": "b"}, 0),
            ("dapi_node_failing", {"node_id": "a"}, 1),
            ("dapi_node_silent_seconds", {"node_id": "a"}, 61.5),
            ("dapi_node_silent_seconds", {"node_id": "b"}, None),
            ("dapi_websocket_state", {"node_id": "a", "state": "refused"}, 1),
            ("dapi_websocket_state", {"node_id": "a", "state": "open"}, 0),
            ("dapi_websocket_reconnects_total", {"node_id": "a", "cause": "http_404"}, 3),
            ("dapi_batches_received_total", {"node_id": "a", "way": "websocket", "kind": "generated"}, 1),
            ("dapi_batches_received_bytes_total", {"node_id": "a", "way": "websocket", "kind": "generated"}, 10),
            ("dapi_batches_received_bytes_total", {"node_id": "a", "way": "websocket", "kind": "validated"}, 20),
            ("dapi_batches_received_total", {"node_id": "a", "way": "http", "kind": "generated"}, 3),
            ("dapi_batches_received_bytes_total", {"node_id": "", "way": "http", "kind": "validated"}, 80),
            ("dapi_batches_doubled_total", {"node_id": "a"}, 4),
            ("dapi_batches_refused_total", {"node_id": "a", "way": "websocket", "reason": "bad_message"}, 5),
            ("dapi_batches_refused_total", {"node_id": "a", "way": "websocket", "reason": "not_stored"}, 6),
            ("dapi_batches_refused_total", {"node_id": "a", "way": "websocket", "reason": "error"}, 7),
        ):
            self.assertEqual(value_of(found, name, **labels), value, (name, labels))

    def test_ports_and_times(self) -> None:
        times = Histogram((0.1, 1.0))
        times.observe(0.1)
        times.observe(5)
        found = self.scraped(
            snapshot(
                ports={"callbacks": PortSample({200: 3, 404: 1}, 5, 6)},
                http_refused={"late": 2},
                ack_seconds={"http": HistogramSample.of(times)},
                commit_seconds=HistogramSample.of(times),
            )
        )
        self.assertEqual(value_of(found, "dapi_http_answers_total", port="callbacks", code="404"), 1)
        self.assertEqual(value_of(found, "dapi_http_connections", port="callbacks"), 5)
        self.assertEqual(value_of(found, "dapi_http_connections_refused_total", port="callbacks"), 6)
        self.assertEqual(value_of(found, "dapi_batches_refused_total", node_id="", way="http", reason="late"), 2)
        for name, labels in (("dapi_ack_seconds", {"way": "http"}), ("dapi_database_commit_seconds", {})):
            buckets = [value_of(found, f"{name}_bucket", le=bound, **labels) for bound in ("0.1", "1.0", "+Inf")]
            self.assertEqual(buckets, [1, 1, 2])
            self.assertEqual(value_of(found, f"{name}_sum", **labels), 5.1)
            self.assertEqual(value_of(found, f"{name}_count", **labels), 2)

    def test_outbox_and_database(self) -> None:
        counts = Counts({(Kind.GENERATED, State.CONFIRMED): 7, (None, State.FAILED): 9})
        found = self.scraped(snapshot(outbox=counts, pending=(4, 5), disk_free_bytes=None))
        self.assertEqual(value_of(found, "dapi_outbox_messages", kind="generated", state="confirmed"), 7)
        self.assertEqual(value_of(found, "dapi_outbox_messages", kind="claim", state="failed"), 0)
        self.assertEqual(value_of(found, "dapi_outbox_pending_messages"), 4)
        self.assertEqual(value_of(found, "dapi_outbox_pending_bytes"), 5)
        self.assertEqual(value_of(found, "dapi_database_state", state="ok"), 1)
        self.assertEqual(value_of(found, "dapi_database_wal_bytes"), 2)
        # What is not known is not there: 0 would say something else.
        self.assertEqual(value_of(found, "dapi_disk_free_bytes"), None)
        self.assertEqual(value_of(self.scraped(snapshot()), "dapi_disk_free_bytes"), 3)
        none = self.scraped(snapshot(outbox=None))
        self.assertEqual([name for name, _ in none if name == "dapi_outbox_messages"], [])

    def test_chain(self) -> None:
        chain = ChainSample(
            "held",
            frozenset({"claim"}),
            {("confirmed", "0"): 2},
            3,
            {"n:1": "sound", "n:2": "behind"},
            100,
            4.5,
            -0.5,
            60,
        )
        phases = PhaseSample(Phase.GENERATE, 5, 6, {"participants": 9, "handed": 8, "answered": 7})
        found = self.scraped(snapshot(chain=chain, phases=phases, is_restart_safe=True))
        for name, labels, value in (
            ("dapi_sending_state", {"state": "held"}, 1),
            ("dapi_sending_state", {"state": "submitting"}, 0),
            ("dapi_sending_held", {"kind": "claim"}, 1),
            ("dapi_sending_held", {"kind": "seed"}, 0),
            ("dapi_transactions_total", {"outcome": "confirmed", "code": "0"}, 2),
            ("dapi_transactions_in_flight", {}, 3),
            ("dapi_chain_node_sound", {"chain_node": "n:1"}, 1),
            ("dapi_chain_node_sound", {"chain_node": "n:2"}, 0),
            ("dapi_chain_height", {}, 100),
            ("dapi_chain_block_age_seconds", {}, 4.5),
            ("dapi_chain_clock_offset_seconds", {}, -0.5),
            ("dapi_outbox_oldest_unfinished_seconds", {}, 60),
            ("dapi_restart_safe", {}, 1),
            ("dapi_chain_phase", {"phase": "PoCGenerate"}, 1),
            ("dapi_chain_phase_blocks_left", {}, 5),
            ("dapi_outbox_blocks_left", {}, 6),
            ("dapi_validation_participants", {}, 9),
            ("dapi_validation_handed_out", {}, 8),
            ("dapi_validation_answered", {}, 7),
        ):
            self.assertEqual(value_of(found, name, **labels), value, (name, labels))

    def test_problems_are_there_also_when_there_are_none(self) -> None:
        problems = {(ProblemId.NODE_DOWN, Severity.CRITICAL): 2, (ProblemId.CLOCK_OFF, Severity.CRITICAL): 1}
        found = self.scraped(snapshot(problems=problems))
        self.assertEqual(value_of(found, "dapi_problems", id="node-down", severity="critical"), 2)
        self.assertEqual(value_of(found, "dapi_problems", id="clock-off", severity="critical"), 1)
        self.assertEqual(value_of(found, "dapi_problems", id="clock-off", severity="warning"), 0)
        told = {dict(labels)["id"] for name, labels in found if name == "dapi_problems"}
        self.assertEqual(told, {str(each) for each in ProblemId})


class ScrapeTests(MetricsTestCase):
    def test_text_is_made_on_another_thread(self) -> None:
        self.successResultOf(self.metrics.text())
        self.assertEqual(self.reactor.deferred, ["generate_latest"])

    def test_one_at_a_time_for_whoever_asks_meanwhile(self) -> None:
        self.taken = Deferred()
        first, second, gone = (self.metrics.text() for _ in range(3))
        gone.addErrback(lambda _: None)
        gone.cancel()
        self.taken.callback(snapshot())
        self.assertEqual(self.successResultOf(first), self.successResultOf(second))
        self.assertEqual(self.number, 1)
        self.taken = succeed(snapshot())
        self.successResultOf(self.metrics.text())
        self.assertEqual(self.number, 2)

    def test_poc_v2(self) -> None:
        times = Histogram()
        times.observe(0.02)
        models = {"m": ModelSample(1250, 825, 7, 3), "n": ModelSample(5)}
        found = self.scraped(
            snapshot(
                relay=relay_sample(counts={"kept": 4, "held": 1}, answer_seconds=HistogramSample.of(times)),
                stage=StageSample(models, 110, 50),
            )
        )
        for name, labels, value in (
            ("dapi_relay_callbacks_total", {"state": "kept"}, 4),
            ("dapi_relay_callbacks_total", {"state": "late"}, 0),
            ("dapi_relay_waiting", {}, 2),
            ("dapi_relay_unsettled", {}, 3),
            ("dapi_relay_held", {}, 1),
            ("dapi_relay_bytes", {}, 500),
            ("dapi_relay_passed_on_total", {}, 6),
            ("dapi_relay_refused_total", {}, 7),
            ("dapi_relay_api_restarts_total", {}, 8),
            ("dapi_relay_away_seconds", {}, 9.5),
            ("dapi_relay_answer_seconds_count", {}, 1),
            ("dapi_relay_forward_seconds_count", {}, 0),
            ("dapi_poc_v2_height", {}, 110),
            ("dapi_poc_v2_blocks_left", {}, 50),
            ("dapi_poc_v2_stored", {"model": "m"}, 1250),
            ("dapi_poc_v2_committed", {"model": "m"}, 825),
            ("dapi_poc_v2_participants", {"model": "m"}, 7),
            ("dapi_poc_v2_votes", {"model": "m"}, 3),
            ("dapi_poc_v2_stored", {"model": "n"}, 5),
            ("dapi_poc_v2_committed", {"model": "n"}, None),
        ):
            self.assertEqual(value_of(found, name, **labels), value, name)

    def test_without_poc_v2_nothing_of_it_is_told(self) -> None:
        names = {name for name, _ in self.scraped(snapshot())}
        self.assertEqual({name for name in names if "relay" in name or "poc_v2" in name}, set())

    def test_no_more_than_16_models(self) -> None:
        found = self.scraped(snapshot(stage=StageSample({f"m{n}": ModelSample(n) for n in range(40)})))
        self.assertEqual(len([name for name, _ in found if name == "dapi_poc_v2_stored"]), 16)

    def test_a_snapshot_that_fails_fails_one_scrape(self) -> None:
        self.taken = fail(ValueError("a defect"))
        self.failureResultOf(self.metrics.text(), ValueError)
        self.assertTrue(self.scraped(snapshot()))

    def test_the_process_is_measured_too(self) -> None:
        names = {name for name, _ in self.scraped(snapshot())}
        self.assertLessEqual({"process_resident_memory_bytes", "process_open_fds", "python_info"}, names)

    def test_two_of_them_do_not_mix(self) -> None:
        other = Metrics(self.reactor, lambda: succeed(snapshot(nodes=[node_sample("other")])))
        self.successResultOf(other.text())
        found = self.scraped(snapshot(nodes=[node_sample("own")]))
        self.assertEqual(value_of(found, "dapi_node_enabled", node_id="own"), 1)
        self.assertEqual(value_of(found, "dapi_node_enabled", node_id="other"), None)

    def test_the_answer_is_text_of_prometheus(self) -> None:
        app = new_app()
        add_routes(app, self.metrics.routes())
        http = ResourceClient(self, app.resource())
        response, body = http.answered(http.ask("GET", "http://127.0.0.1/metrics", None, {}))
        self.assertEqual(response.code, 200)
        (content_type,) = response.headers.getRawHeaders("content-type", [])
        self.assertTrue(content_type.startswith("text/plain; version=0.0.4"))
        self.assertEqual(value_of(series_of(body), "dapi_build_info", version="1"), 1)
