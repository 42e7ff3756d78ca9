"""The way of a message from the outbox into a block: chosen, signed, sent and confirmed.

The whole way of a batch, from the frame to the block, with what is kept where, and what a failure does:

1. **The frame.** ``WebSocketNodeProtocol.message_received`` hands a message of the node to ``MessageIntake.store``,
   which decodes it; beyond its bounds messages are queued undecoded, and then the connection is not read. A batch that
   comes by HTTP is decoded by ``Callbacks``. All of it is in memory only. A bad message is counted and not
   acknowledged. When the connection is lost, the queue goes with it: the node sends again, every 5 s, either way.
2. **The message.** ``BatchHandler.handle_generated_batch`` names the batch by its ``content_id``, the same whichever
   way it comes, and ``CosmosMessageClient.submit_poc_batch`` makes the chain's message of it, without its creator. From
   the frame to this message, the numbers are columns of machine numbers (``dapi.messages.columns``).
3. **The disk.** ``Outbox.put`` holds it as pending, up to 64 MiB. ``Outbox._commit`` stores all that are pending with
   one statement (``Database.write``, on the writer's thread). After the fsync their receipts fire: only now the node
   gets its ack or 200. A full or locked disk fails with StoreBusyError: no ack, and the node sends again. From here on
   the batch is *stored*, and survives a kill at any point.
4. **The choice.** What is new in the outbox wakes the Submitter, and so does each block. ``Sender.send`` sends as much
   as ``Pace`` allows: as many transactions, and of such a size, as the chain has shown to take.
   ``Submissions.begin`` makes several of them in one turn: ``next_messages`` chooses a seed first, and alone; then what
   expires first, each kind by itself, and as it came; a node of which much was sent lets the others go first
   (``NodeShares``). Near the end of a window few go together, because one that fails costs its
   neighbours a block. A batch of another run than its stage's, or of a stage that the chain has not told of, stays
   where it is. A batch of too many nonces is cut into parts, which are messages of their own. A body that the disk has
   damaged is not sent: its batch fails.
5. **The signature.** ``TransactionSigner.sign`` puts the creator in front of each message, gives each a MsgExec of its
   own where the key is a granted one, and signs with a time that ``TimestampSource.next`` never gave before.
   ``put_in_flight`` writes hash and time to disk, with one commit for the whole turn: the messages are *in_flight*.
   Only then the bytes leave. After a kill, ``Submitter._recover`` finds the transaction, and ``Sender._sign_anew``
   makes the same bytes again.
6. **The mempool.** ``Sender.offer`` gives the bytes to ``ChainRpc.broadcast_tx_sync``. That a node takes them means
   nothing yet: they are offered again, later and later. Where no mempool has room, the messages are *stored* again, and
   less is sent. A refusal is the word of one node: the others are asked, and then the messages are *stored* again, to
   be sent some blocks later. It counts only when no mempool can have had the bytes before.
7. **The block.** At each block ``TransactionFinder.find`` looks for all hashes. Code 0: ``Decisions.confirm``, and the
   batch is *confirmed*; its row moves to *finished*, without its body. Another code undoes the whole transaction:
   ``judge`` says what it means. A problem that people can mend holds this kind of message back, see ``problems``. Else
   ``messages_blamed`` says whom it is about, and all others go again at once, a few together, many in
   quarters; where nobody is named, in halves. When the chain's time has passed the transaction's, and it is in no
   block, it never will be: ``Decisions.time_has_passed`` has its messages go into another one.
8. **The end of the window.** ``Deadlines.check`` expires what is stored and can be in no block in time. What *failed*
   or *expired* is kept whole, with its reason; ``Outbox.retry`` stores a failed batch again.

While the chain has a problem, all waits on disk and nothing grows in memory. The laws of sending stand at the top of
``submitter``, the states of a message are drawn in ``dapi.database.schema``.
"""
