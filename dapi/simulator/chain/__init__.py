"""A chain on real sockets, as strict as the network's own, and failing on demand. It shares no code with dapi's own.

``SimulatedChain`` (``chain``) is what tests and the demo start. It makes blocks (``blocks``) of the validators' mempool
and has one ``SimulatedNode`` (``node_service``) or several. Each node has a port (``rpc``, ``methods``), a mempool, and
its own view of the chain (``node``).

A transaction is read by hand (``wire``, ``messages``, ``transactions``), checked when it comes in (``checks``,
``ante``) and executed in its block (``execution``). ``state`` keeps what it leaves, for every height (``stores``). The
end of a block forms epochs and settles them (``weights``); ``claims`` pays. ``queries`` and ``host_queries`` answer
from the state of a height. ``rules`` has what differs between versions of the chain, ``epochs`` the windows.
"""
