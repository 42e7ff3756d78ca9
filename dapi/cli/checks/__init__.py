"""What ``dapi check`` tries, without a running dapi, and without changing anything.

``local`` looks at this machine: settings, key, database, disk, ports, callback URL. ``remote`` asks the chain's nodes
and the ML nodes, ``poc_v2`` the network's own api container. Each check is a ``Check``: PASS, FAIL with what to do, or
SKIPPED with the reason.
"""
