"""An ML node on a real socket: its HTTP API, its WebSocket, its sender."""
