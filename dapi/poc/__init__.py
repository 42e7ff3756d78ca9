"""The way in for the batches of ML nodes: one BatchHandler and one WebSocketClient a node.

Over the WebSocket, ``WebSocketNodeProtocol.message_received`` gives a message to ``MessageIntake.store``, which decodes
it and calls ``BatchHandler.handle_generated_batch`` or ``handle_validated_batch``. By HTTP, the callbacks call the same
two methods. The handler asks its Recorder, the way down to the chain, to store the batch under its ``content_id``. When
the Receipt says that the batch is on disk, MessageIntake acknowledges the message; else the node sends it again. One
of a mebibyte or more is decoded by ``LargeBatches``, on a thread of its own, whichever way it comes.

MessageIntake bounds what is pending, and MessageCounter counts what fails. A connection that the node has forgotten is
replaced: ``WebSocketNodeProtocol._check_idle`` ends one that brings nothing, and WebSocketClient one that the node goes
round by HTTP (``BatchHandler.observe_bypass``). WebSocketSettings has the times; ``websocket_address`` the address.
"""
