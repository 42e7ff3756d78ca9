"""PoC v2: callbacks of the nodes' vLLMs, kept on disk and handed on to the network's own api container.

The way of one callback, and what a failure does:

1. **The body.** ``SmallBody`` has it in memory; ``LargeBody`` brings it to disk in pieces while it comes, and hardly
   more than 1 MiB of it is in memory. ``RelayStore.read`` finds what can be read: stage, node, nonces. Nothing in it
   has to be readable.
2. **The disk.** ``RelayStore.keep`` brings all that wait to the disk together: small bodies in one file with one sync,
   and the rows with one commit. Only now the node gets its 200. The same body twice is kept once. When the disk fails,
   ``Relay.take`` hands the request on there and then, and gives the container's own answer back: the node is no worse
   off than without dapi.
3. **The way on.** ``Forwarder`` sends each payload byte for byte, the oldest first, in turn over models and nodes.
   ``judge`` says what an answer means. A payload that waits holds no other one up.
4. **The check.** A 200 of the container means *in memory*. ``StageLedger`` compares what it counts on disk with what
   was handed on. What is not counted 15 s after its 200 goes again, and so does what was in memory when the container
   was started anew.
5. **What is held.** A stage that the container does not know yet, a model that no node runs, and vectors that no node
   makes, are held, shown, and not handed on (``held_reason``).

Facts: docs/protocol/poc-v2.md. With ``poc_v2.relay`` not set nothing of it runs.
"""
