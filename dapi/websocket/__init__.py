"""A WebSocket that is kept open: what the clients of ML nodes and of the chain have in common."""
