"""What the chain says of its epochs: their phases, their stages and the batches of a stage.

``phases`` is pure. ``EpochInfo`` is one answer of the chain, and all else follows from it and a height: the stages, the
one that is under way, its phase, the duty of the nodes, the windows of its messages. ``epoch_queries`` asks for it, at
each block anew, since governance may change the durations at any time. ``stage_queries`` asks for all batches of a
stage, which ``batch_reader`` (pure) reads one at a time, and for the nodes that stay in inference. ``Duty`` is what one
node is to do.

A *stage* is one PoC of the chain, regular or confirmation, named by its start height. A *phase* says where the chain is
in its epoch. A *window* is the blocks in which the chain accepts a message.
"""
