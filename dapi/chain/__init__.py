"""Speaking with the nodes of a Cosmos chain: calls, blocks, keys and transactions; no meaning of ours.

``ChainNodes`` (``nodes``) knows the nodes that the operator named: which of them is sound, behind, failing or of
another chain (``identity`` compares blocks), and the latest block that any of them told. ``ChainRpc`` (``rpc``) makes a
call to the best of them, and to the next one when that fails; ``JsonRpc`` (``json_rpc``) makes it to one.
``rpc_answers`` turns the JSON of the answers into values, ``rpc_errors`` sorts what went wrong into the three errors
that a caller can act on.

``BlockWatcher`` (``block_watcher``) follows the latest block, the ``head``: by ``BlockEvents`` (``block_events``, a
WebSocket to one node) as soon as a block is there, and by the status of all nodes, for which it asks every few seconds.
Who acts on blocks observes it and reads its ``problem``.

``TransactionFinder`` (``transaction_finder``) tells in which block transactions are, by an index or by reading blocks.

``SigningKey`` (``keyring``) is loaded once, at start. ``TransactionSigner`` (``transactions``) puts messages into a
transaction and signs it; it needs the key's ``account_number`` (``queries``) and a new time from ``TimestampSource``.
"""
