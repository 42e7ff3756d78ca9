"""Kills of dapi, of ML nodes and of the chain's validator, each of them a process of its own.

::

    chain_process ── blocks ──▶ FOLDER/blocks      node_process ── batches ──▶ FOLDER/node1, FOLDER/node2
          ▲                          │                   │                          │
          └───────── dapi ───────────│───────────────────┘                          │
                                     └──────────────▶ test_kills ◀──────────────────┘

What a process did is in its journal, which survives its kill. The test counts from the journals and from dapi's
database.
"""
