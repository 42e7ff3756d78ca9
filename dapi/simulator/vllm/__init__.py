"""A vLLM process that makes artifacts and results, and POSTs them by itself, as in a network with PoC v2.

``sender`` has the buffer of artifacts and the one pending payload, ``results`` the queue of results of validations.
Both deliver by the tries of ``delivery``. Facts: docs/protocol/poc-v2.md, 'Senders'.
"""
