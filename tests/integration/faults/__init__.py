"""Faults in a whole epoch, on real sockets: what was generated, acknowledged, on disk and in a block is counted."""
