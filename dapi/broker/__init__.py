"""The broker knows the nodes and has them work: the way of a phase from an intention to a node's command.

What comes before is told in ``dapi.orchestration``, which gives each node an Intention (duties.py): a Duty, in a stage.
``Reconciler.intend`` hands the Intention to the node's NodeReconciler, whose states are drawn in node_reconciler.py. It
asks ``Broker.command_for`` for the command, by the table ``MEANINGS`` (duties.py), and ``NodeWorker.submit`` queues the
command. The worker executes one command after the other (``execute`` in node_worker_commands.py): each calls the node
through its MLNodeClient, then opens or closes its WebSocketClient. From then on NodeInspector asks the node whether it
does its duty, and the command is given again when it does not.

Broker registers nodes in the NodeStore (nodes.py), which numbers them, and has a NodeWorker made for each; the workers
belong to NodeWorkGroup. ``Broker.command_all`` gives commands by hand, as CommandRounds (command_round.py).
``Rehearsals.begin`` (rehearsals.py) rehearses PoC on one node (rehearsal.py).
"""
