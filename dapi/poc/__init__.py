"""The way in: one BatchHandler and one WebSocketClient for each node."""
