"""Who works for us: the nodes, their workers and the commands they are given."""
