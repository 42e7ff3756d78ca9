"""What the chain's phases make the nodes do: who acts in which stage, and what was done for it.

The whole way of a phase, from the block to a node's command, and what a failure does:

1. **The block.** ``BlockEvents`` brings it over the chain's WebSocket; while no event comes, ``BlockWatcher.loop`` asks
   for the status each second. The BlockWatcher moves its head, which never goes back, and calls its observers. A chain
   that is away, catches up or makes no block for 10 s is its ``problem``: until that is over, nobody acts.
2. **The turn.** A block wakes ``Conductor.loop``, which makes a turn; so do 30 s without one. ``Conductor._turn`` asks
   which stage it is and what was done for it, and does what is missing. So a missed block or a restart delays a step,
   and never skips it. A failed query or a busy disk ends the turn: the nodes are left as they are, and the next turn
   comes after 3 to 5 s.
3. **The stage.** ``epoch_info`` asks for the epochs at the head's height, and ``EpochInfo.stage_under_way`` says which
   PoC it is, if any. ``StageBook.begin`` records it on disk, with its node count. ``Seeds.store`` stores the epoch's
   seed; a full disk delays the seed, and keeps no node waiting. ``begin_work`` asks for the block hash, and for the
   nodes that stay in inference. Without the latter the nodes wait for a quarter of generation; then all take part.
4. **The duties.** ``StageWork.intentions`` gives each node its duty (below). When generation has ended, each stored
   batch calls ``Conductor.batch_stored``: a node that has delivered all validates at once, all others from two blocks
   before the end of the window on.
5. **The command.** ``Reconciler.intend`` takes the duties, and ``dapi.broker`` tells how each node gets to its own.
   What a model is to be started with is asked before (``ArgumentsFollowing.learn``). A chain that does not answer that
   keeps nodes from serving for 5 blocks at most.
6. **The validation.** In its time ``Conductor._validate`` begins a StageValidation. ``query_samples`` makes a batch of
   each participant while the chain's answer comes, ``Assignments.decide`` says which node gets it,
   ``Comparison.hand_out`` records that, and ``MLNodeClient.validate`` posts it; a node that refuses passes it on to the
   next. The verdict comes back as batches do (``dapi.submission`` tells how), and ``Conductor.verdict_stored`` hears of
   it; one that the node was not asked for is kept, and not sent. A node that is silent for 60 s loses what it holds,
   and is stopped once (``StageWork.stop_once``). After a restart only those are validated that have no verdict on disk.
7. **The end.** ``Deadlines.check`` expires what missed its window, ``Deadlines.end_without_stage`` what is of no stage.
   ``PhaseStatus`` answers what people ask meanwhile.

Beside that ``Host`` looks after what makes a stage worth something, at each block and after each change of the nodes:

- ``Declaring.look`` compares the registered nodes with those that the chain has, and stores a hardware diff for it.
- ``Claiming.look`` asks what is owed for the epoch that the chain pays for now, and stores the claim, once an epoch.
  ``claim_answers`` reads from the transaction's data whether it was paid; code 0 does not say so.
- ``Counting.look`` asks what the latest epochs weigh, and warns of nodes whose confirmed batches count nothing.
- ``VersionFollowing.look`` asks below which path the network's nodes answer.

A failed query delays one of them by 3 to 5 s, and none of the others.

    phase                          duty                    command              what the node says
    Inference                      INFERENCE               InferenceUpCommand   INFERENCE, and its health is good
    PoCGenerate                    GENERATE                StartPocCommand      POW: LOADING, then GENERATING
    PoCGenerateWindDown            GENERATE, at its end    InitValidateCommand  POW: LOADING, then VALIDATING
                                   VALIDATE
    PoCValidate, …WindDown         VALIDATE                InitValidateCommand  POW: LOADING, then VALIDATING
    PoC, node stays in inference   INFERENCE               InferenceUpCommand   INFERENCE, and its health is good
    PoC, node is silent            STOPPED, once           StopNodeCommand      STOPPED
"""
