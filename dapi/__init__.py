"""dapi takes PoW batches from ML nodes and hands them to the chain: none lost, none doubled."""

__version__ = "0.1.0"
