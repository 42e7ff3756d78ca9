"""The soak: dapi for many epochs between a failing chain and many ML nodes, judged by what the other sides recorded.

``python -m bench.soak`` runs the simulated chain and the simulated nodes in this process (``run``), makes them fail
(``faults``), and runs dapi in a process of its own (``dapi``), so that its memory, its CPU and the steps of its reactor
are measured alone. At the end it counts (``account``) from the nodes' ledgers and the chain's stores, and believes
nothing that dapi says. The exit code is 1 when a promise is broken.

**Whose window allowed it.** The *chances* of an acknowledged batch are the blocks of its stage's window (P + 1 …
G + exchange) that were made after its ack, while the signing key had its grant. A stall costs no chance: the window is
counted in blocks. Nor does a fault of the first chain node: the second one is always sound. The window allowed the
batch when it had at least ``--chances`` of them (5: what a backlog may take after a stall). All of these must be in the
store. The table by chances shows how the others did.

A batch of a wrong height, or one that the simulated chain refuses by its content, has no window; none may be in the
store.

**Growth.** In the last block before each next PoC, the system tells what dapi's process has in memory and how many
files it has open. A promise is broken when that is more after the last epoch than after the second one, by more than
``growth`` allows. It takes three epochs to say anything.

**A busy machine.** Chances are blocks, and blocks come by the clock. Where other programs have the CPU that dapi and
the simulators ask for, a block is over before its look-ups are answered, and a chance is none. So the account says for
how long dapi's reactor and the simulators waited for a CPU. Where either waited longer than it computed, a batch that
is missing, or a call that is still under way, says nothing about dapi, and the exit code is 2.

**Shorter runs.** ``--block-seconds`` and ``--batch-seconds`` shrink together (``--duration`` computes both), and with
them the stalls and the times of the nodes: messages and bytes per block stay those of 5 s blocks. The chain's own clock
goes on by 5 s a block, so a transaction's 60 s stay 12 blocks. dapi's delays (3 to 5 s before a retry, 3 s for a call)
do not shrink: a shorter run is a harder one.
"""
