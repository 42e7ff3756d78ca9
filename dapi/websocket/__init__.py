"""A WebSocket that is kept open, without knowledge of what its messages mean.

``split_url`` makes a WebSocketAddress of a URL, and ``websocket_endpoint`` an endpoint that checks whom it reaches
(address.py). SupervisedWebSocket (client.py) is the service that connects to it, and again 3 to 5 s after each
interruption; its states are drawn there. Each connection is a WatchedConnection (protocol.py), made by
WatchedConnectionFactory (factory.py): Autobahn's protocol with timers, pauses and bounds of our own, and a shorter way
for what a node mostly sends (whole_messages.py) and for what it is answered (frames.py). It reports to its
ConnectionObserver, the client, at last with an Ending (reasons.py). ConnectionJournal (journal.py) decides which of
that is logged, ConnectionSettings (settings.py) has the times and sizes. Subclasses of SupervisedWebSocket and of
WatchedConnection give the messages a meaning: in ``dapi.poc`` for ML nodes, in ``dapi.chain`` for the chain.
"""
