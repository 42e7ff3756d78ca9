"""The times of a simulated node: those of a real one, or all of them smaller by one factor."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dapi.simulator.ml_node.settings import MLNodeSettings, quick_settings, scaled_settings

# Those whose length is that of a client's answer, not the node's.
LONGER = {"ack_wait_seconds", "silence_seconds"}
MEASURED: dict[str, Any] = {
    "walk_seconds": 5.0,
    "ack_wait_seconds": 3.0,
    "init_seconds": 1.1,
    "stop_seconds": (3.0, 5.0),
    "restart_seconds": (1.9, 5.5),
    "hung_stop_seconds": 5.0,
    "ping_seconds": 20.0,
    "silence_seconds": 20.0,
    "send_seconds": 5.0,
}


def times_of(settings: MLNodeSettings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in MEASURED}


class SettingsTests(SynchronousTestCase):
    def test_the_defaults_are_the_times_of_a_real_node(self) -> None:
        """(docs/protocol/measured.md, 'Times of a real node')"""
        self.assertEqual(times_of(MLNodeSettings()), MEASURED)

    def test_one_factor_scales_them_all(self) -> None:
        scaled = times_of(scaled_settings(0.5))
        halves = {
            name: tuple(s / 2 for s in value) if isinstance(value, tuple) else value / 2
            for name, value in MEASURED.items()
        }
        self.assertEqual(scaled, halves)
        self.assertEqual(scaled_settings(0.5, walk_seconds=9.0).walk_seconds, 9.0)

    def test_tests_use_a_twentieth_but_for_what_a_client_takes(self) -> None:
        quick, twentieth = times_of(quick_settings()), times_of(scaled_settings(1 / 20))
        self.assertEqual({name for name in MEASURED if quick[name] != twentieth[name]}, LONGER)
