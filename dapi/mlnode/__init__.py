"""An ML node's HTTP API."""
