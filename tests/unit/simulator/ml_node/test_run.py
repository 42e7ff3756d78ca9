"""One PoW of a simulated node: its states, its status, and what it computes."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.simulator.ml_node.run import DistanceError, PowRun, RunState
from dapi.simulator.ml_node.settings import MLNodeSettings
from dapi.simulator.ml_node.work import InitRequest
from tests.unit.simulator.ml_node.test_work import init_body

# As drawn at the top of the file, with the shutdown that leads to ENDED from everywhere.
DRAWN = {
    (RunState.STARTING, RunState.RUNNING),
    (RunState.STARTING, RunState.ENDING),
    (RunState.STARTING, RunState.ENDED),
    (RunState.RUNNING, RunState.ENDING),
    (RunState.RUNNING, RunState.ENDED),
    (RunState.ENDING, RunState.ENDED),
}


def starting(clock: Clock, settings: MLNodeSettings) -> PowRun:
    return PowRun(clock, InitRequest.from_body(init_body()), settings)


def running(clock: Clock, settings: MLNodeSettings) -> PowRun:
    """A PoW that generates."""
    run = starting(clock, settings)
    run.move_to(RunState.RUNNING)
    run.phase = "generate"
    return run


class StateTests(SynchronousTestCase):
    def test_moves_that_are_drawn_and_no_other(self) -> None:
        for before in RunState:
            for after in RunState:
                run = starting(Clock(), MLNodeSettings())
                run.state = before
                if (before, after) in DRAWN:
                    run.move_to(after)
                    self.assertIs(run.state, after)
                else:
                    self.assertRaises(RuntimeError, run.move_to, after)

    def test_status(self) -> None:
        """(docs/protocol/node.md, 'Status of PoW')"""
        clock = Clock()
        run = starting(clock, MLNodeSettings(load_seconds=5))
        self.assertEqual(run.status, {"status": "LOADING", "is_model_initialized": False})
        run.move_to(RunState.RUNNING)
        run.phase = "generate"
        self.assertEqual(run.status, {"status": "GENERATING", "is_model_initialized": False})
        clock.advance(5)
        self.assertEqual(run.status, {"status": "GENERATING", "is_model_initialized": True})
        run.phase = "validate"
        self.assertEqual(run.status, {"status": "VALIDATING", "is_model_initialized": True})
        run.move_to(RunState.ENDING)
        self.assertEqual(run.status, {"status": "IDLE", "is_model_initialized": True})


class ComputingTests(SynchronousTestCase):
    def test_each_run_begins_its_nonces_anew(self) -> None:
        """(docs/protocol/node.md, 'Restarts')"""
        first, second = (running(Clock(), MLNodeSettings(nonces_per_batch=3)) for _ in range(2))
        (_, batch), (_, after) = (*first.compute(), *first.compute())
        self.assertEqual(batch["nonces"][0], init_body()["node_id"])
        self.assertGreater(after["nonces"][0], batch["nonces"][-1])
        self.assertEqual(second.compute(), [("generated", batch)])

    def test_only_a_run_that_runs_computes(self) -> None:
        run = starting(Clock(), MLNodeSettings())
        run.phase = "generate"
        self.assertEqual(run.compute(), [])
        run.move_to(RunState.RUNNING)
        self.assertEqual(len(run.compute()), 1)
        run.move_to(RunState.ENDING)
        run.phase = "generate"
        self.assertEqual(run.compute(), [])

    def test_batches_to_validate_wait_for_their_phase(self) -> None:
        run = running(Clock(), MLNodeSettings())
        ((_, batch),) = run.compute()
        run.to_validate.append(batch)
        self.assertEqual([kind for kind, _ in run.compute()], ["generated"])
        run.phase = "validate"
        self.assertEqual([kind for kind, _ in run.compute()], ["validated"])
        self.assertEqual(run.compute(), [])

    def test_a_claimed_distance_at_the_target_is_fatal(self) -> None:
        """(docs/protocol/node.md, 'What a node loses')"""
        run = running(Clock(), MLNodeSettings())
        run.phase = "validate"
        ((_, batch),) = running(Clock(), MLNodeSettings()).compute()
        run.to_validate.append(batch | {"dist": [run.request.r_target, *batch["dist"][1:]]})
        self.assertRaises(DistanceError, run.compute)
