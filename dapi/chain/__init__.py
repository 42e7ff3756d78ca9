"""Speaking with the nodes of a Cosmos chain: calls, blocks, keys and transactions; no meaning of ours.

``ChainRpc`` (``rpc``) makes one call to the first node that can answer it. ``rpc_answers`` turns the JSON of the
answers into values, ``rpc_errors`` sorts what went wrong into the three errors that a caller can act on.

``BlockWatcher`` (``block_watcher``) knows the latest block, the ``head``: from ``BlockEvents`` (``block_events``, a
WebSocket) as soon as a block is there, and from ``ChainRpc.status`` where the events fail. Who acts on blocks observes
it and reads its ``problem``.

``SigningKey`` (``keyring``) is loaded once, at start. ``TransactionSigner`` (``transactions``) puts messages into a
transaction and signs it; it needs the key's ``account_number`` (``queries``) and a new time from ``TimestampSource``.
"""
