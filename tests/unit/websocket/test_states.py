"""The states of a SupervisedWebSocket: each transition that is drawn is walked, and each other one is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from dapi.websocket import client as module
from dapi.websocket.client import _NEXT, _State
from tests.unit.websocket.client_in_memory import ClientInMemory
from tests.unit.websocket.links import ScriptedServer

Act = Callable[[ClientInMemory], object]


def refuse_upgrade(world: ClientInMemory) -> None:
    world.accept(ScriptedServer(b"HTTP/1.1 404 Not Found\r\n\r\n"))


def close_with_1008(world: ClientInMemory) -> None:
    world.links[-1].server.close(1008, "PoW is not running")
    world.links[-1].flush()


def open_to_a_node_that_answers_no_close(world: ClientInMemory) -> None:
    world.open().server.answers_closes = False


# How a client that was just made comes into each state.
INTO: dict[_State, tuple[Act, ...]] = {
    _State.STOPPED: (),
    _State.SETTLING: (ClientInMemory.open, lambda world: world.client.restart(), lambda world: world.links[-1].flush()),
    _State.CONNECTING: (lambda world: world.client.startService(),),
    _State.OPEN: (ClientInMemory.open,),
    _State.WAITING: (lambda world: world.client.startService(), ClientInMemory.refuse),
    _State.REFUSED: (lambda world: world.client.startService(), refuse_upgrade),
    _State.RESTARTING: (open_to_a_node_that_answers_no_close, lambda world: world.client.restart()),
    _State.STOPPING: (open_to_a_node_that_answers_no_close, lambda world: world.client.stopService()),
}

# What leads from a state to the next, besides a restart and a stop.
EVENTS: dict[tuple[_State, _State], Act] = {
    (_State.STOPPED, _State.SETTLING): lambda world: world.client.startService(),
    (_State.SETTLING, _State.CONNECTING): lambda world: world.advance(1),
    (_State.CONNECTING, _State.OPEN): ClientInMemory.accept,
    (_State.CONNECTING, _State.WAITING): ClientInMemory.refuse,
    (_State.CONNECTING, _State.REFUSED): refuse_upgrade,
    (_State.OPEN, _State.WAITING): lambda world: world.links[-1].drop(ConnectionLost()),
    (_State.OPEN, _State.REFUSED): close_with_1008,
    (_State.WAITING, _State.CONNECTING): ClientInMemory.until_next_attempt,
    (_State.REFUSED, _State.CONNECTING): ClientInMemory.until_next_attempt,
    (_State.RESTARTING, _State.SETTLING): lambda world: world.advance(1.05),
    (_State.STOPPING, _State.STOPPED): lambda world: world.advance(1.05),
}
for state in set(_State) - {_State.STOPPED}:
    EVENTS[state, _State.RESTARTING] = lambda world: world.client.restart()
    EVENTS[state, _State.STOPPING] = lambda world: world.client.stopService()


class StateTests(SynchronousTestCase):
    def _client_in(self, state: _State) -> ClientInMemory:
        world = ClientInMemory()
        for act in INTO[state]:
            act(world)
        self.assertIs(world.client._state, state)
        return world

    def _entered(self, world: ClientInMemory) -> list[_State]:
        """Record the states that the client enters from here on."""
        entered: list[_State] = []
        enter = world.client._enter

        def record(state: _State, *details: Any) -> None:
            entered.append(state)
            enter(state, *details)

        self.patch(world.client, "_enter", record)
        return entered

    def test_each_transition_that_is_drawn(self) -> None:
        for (before, after), act in EVENTS.items():
            world = self._client_in(before)
            entered = self._entered(world)
            act(world)
            self.assertEqual(entered[:1], [after], before)

    def test_no_other_is_in_the_table(self) -> None:
        self.assertEqual(set(EVENTS), {(before, after) for before in _State for after in _NEXT[before]})

    def test_each_other_one_is_refused(self) -> None:
        for before in _State:
            for after in set(_State) - _NEXT[before]:
                world = self._client_in(before)
                status = world.client.connection_status()
                with self.assertRaisesRegex(RuntimeError, f"{before.name} does not lead to {after.name}"):
                    world.client._enter(after, None)
                self.assertEqual((world.client._state, world.client.connection_status()), (before, status))

    def test_the_drawing_has_each_state(self) -> None:
        drawn = re.findall(r"\b[A-Z]{4,}\b", (module.__doc__ or "").partition("``_keep_open``")[0])
        self.assertEqual(set(drawn), {state.name for state in _State})
