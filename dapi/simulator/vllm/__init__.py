"""A vLLM process that makes artifacts and POSTs them by itself, as in a network with PoC v2.

``sender`` has the buffer, the one pending payload, and its tries. Facts: docs/protocol/poc-v2.md, 'Senders'.
"""
