"""What one broken or hostile peer costs the well-behaved nodes: their ack times without it, and beside it.

Three processes: the whole of dapi (``intake.py``), the well-behaved nodes (``good.py``), and the abuser
(``attacks.py``, ``floods.py``). The last one is niced: it stands for another machine, and is not to take the
processor from the others. Each abuse meets a dapi of its own. That is measured without the abuse first, then beside
it, so that the two stand beside each other in time, too.

``python -m bench.abuse`` prints a Markdown table, and exits with 1 when an abuse breaks a limit: the 99th percentile of
the ack times beside it is at most twice that without it, or 20 ms where that is more, and the process grows by at most
100 MB.
"""
