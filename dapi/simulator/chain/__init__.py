"""A chain on a real socket: its RPC, its rules, its epochs."""
