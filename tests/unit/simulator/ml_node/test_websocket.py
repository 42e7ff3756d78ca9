"""The states of a connection to a simulated node; its behaviour is tested on real sockets."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.simulator.ml_node.websocket import ConnectionState, NodeWebSocketProtocol

# As drawn at the top of the file.
DRAWN = {
    (ConnectionState.NEW, ConnectionState.SERVED),
    (ConnectionState.NEW, ConnectionState.REFUSED),
    (ConnectionState.NEW, ConnectionState.CLOSED),
    (ConnectionState.SERVED, ConnectionState.LEFT),
    (ConnectionState.SERVED, ConnectionState.CLOSED),
    (ConnectionState.LEFT, ConnectionState.CLOSED),
    (ConnectionState.REFUSED, ConnectionState.CLOSED),
}


class StateTests(SynchronousTestCase):
    def test_moves_that_are_drawn_and_no_other(self) -> None:
        for before in ConnectionState:
            for after in ConnectionState:
                connection = NodeWebSocketProtocol(Clock())
                connection.state_of_use = before
                if (before, after) in DRAWN:
                    connection.move_to(after)
                    self.assertIs(connection.state_of_use, after)
                else:
                    self.assertRaises(RuntimeError, connection.move_to, after)
