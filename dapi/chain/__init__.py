"""Speaking with a Cosmos node: its RPC, its blocks, keys and transactions."""
