"""The model test: dapi in memory, through any order of deliveries, faults, restarts and blocks.

``world`` has the chain, the nodes and the disk, and sees what dapi promised; ``network`` is between them, ``process``
one life of dapi on its database, and ``machine`` the steps. ``python -m tests.model`` (``make model``) plays with
random seeds; ``test_model`` plays the same steps each time.
"""
