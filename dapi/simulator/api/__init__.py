"""The network's own api container as a network with PoC v2 has it, on real sockets: what dapi's relay stands before.

``stages`` says when what is taken. ``artifacts`` is what the container keeps: in memory until a timer flushes it, so
that a crash loses it. ``answers`` decides about one callback, in the order of the real checks. ``api`` is the service
with its three ports and its faults, ``http`` its routes. Facts: docs/protocol/poc-v2.md.
"""
