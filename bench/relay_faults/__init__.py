"""What outages cost a host of PoC v2, without dapi and with it: ``python -m bench.relay_faults``.

For each fault there are two hosts with the same nodes: the nodes of one post to its api container, those of the other
to a dapi of its own (``twistd dapi``, a process) with the relay. Both meet the same fault at the same moment, by
chance, for as long; it is over 16 s before the stage ends at the latest, and every other one ends in the 10 s before
that. Nothing is hastened: a block a second, senders and container with their real times. At the end of the stage it is
compared what was made, what was answered with 200 and what is committed. All that a dapi answered with 200 more than
15 s before the end has to be committed; every body that came to the container has to be one that a node made, to the
byte, below the same path. ``--rounds`` makes so many stages.

The last line is JSON; the exit code is 1 when a promise is broken.
"""
