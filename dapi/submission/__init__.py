"""The way of a message from the outbox into a block: chosen, signed, sent and confirmed.

The whole way of a batch, from the frame to the block, with what is kept where, and what a failure does:

1. **The frame.** ``WebSocketNodeProtocol.message_received`` hands a message of the node to ``MessageIntake.store``,
   which decodes it; beyond its bounds messages are queued undecoded, and then the connection is not read. A batch that
   comes by HTTP is decoded by ``Callbacks``. All of it is in memory only. A bad message is counted and not
   acknowledged. When the connection is lost, the queue goes with it: the node sends again, every 5 s, either way.
2. **The message.** ``BatchHandler.handle_generated_batch`` names the batch by its ``content_id``, the same whichever
   way it comes, and ``CosmosMessageClient.submit_poc_batch`` makes the chain's message of it, without its creator.
3. **The disk.** ``Outbox.put`` holds it as pending, up to 64 MiB. ``Outbox._commit`` stores all that are pending with
   one statement (``Database.write``, on the writer's thread). After the fsync their receipts fire: only now the node
   gets its ack or 200. A full or locked disk fails with StoreBusyError: no ack, and the node sends again. From here on
   the batch is *stored*, and survives a kill at any point.
4. **The choice.** What is new in the outbox wakes the Submitter, and so does each block. ``Submitter._turn`` looks up
   what is in flight, and then sends until 16 transactions are. ``Submissions.next_messages`` chooses: the oldest stage
   first, up to the bytes of a transaction. A batch of too many nonces is cut into parts, which are messages of their
   own. A body that the disk has damaged is not sent: its batch fails.
5. **The signature.** ``TransactionSigner.sign`` puts the creator in front of each message, and signs with a time that
   ``TimestampSource.next`` never gave before. ``Submissions.put_in_flight`` writes hash and time to disk: the messages
   are *in_flight*. Only then the bytes leave. After a kill, ``Submitter._recover`` finds the transaction by its hash,
   and ``Submitter._sign_anew`` makes the same bytes again.
6. **The mempool.** ``Submitter._offer`` gives the bytes to ``ChainRpc.broadcast_tx_sync``. That a node takes them means
   nothing yet. Where no node answers or has room, they are offered again every 3 s. A refusal counts only when no
   mempool can have had the bytes before; then it is treated like a code from a block.
7. **The block.** At each block ``Submitter._look_up`` asks for the hash. Code 0: ``Submissions.confirm``, and the batch
   is *confirmed*; its row moves to *finished*, without its body. Another code: ``judge`` says what it means and
   ``messages_blamed`` whom it is about; the others go again. When the chain's time has passed the transaction's, and it
   is in no block, it never will be: ``Submissions.store_again`` has its messages go into another one.
8. **The end of the window.** ``Deadlines.check`` expires what is stored and can be in no block in time. What *failed*
   or *expired* is kept whole, with its reason; ``Outbox.retry`` stores a failed batch again.

While the chain has a problem, all waits on disk and nothing grows in memory. The laws of sending stand at the top of
``submitter``, the states of a message are drawn in ``dapi.database.schema``.
"""
