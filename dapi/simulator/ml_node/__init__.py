"""An ML node on real sockets, made from docs/protocol/node.md alone, so that it is an independent check of dapi.

``node`` has the service, ``SimulatedMLNode``, and what a test may do to it. ``http`` takes a call and gives it to
``api``, which knows the services (PoW, inference) and makes a ``PowRun`` (``sender``) at an init. The run's sender
walks over its batches, which ``work`` computes, and delivers each over the ``websocket`` or by an HTTP callback.

``settings`` has every time and every fault that can be switched on; ``ledger`` keeps what happened: each batch with its
attempts, each call, each connection. ``listener`` is the port: it can leave connections unread, or cut them.
"""
