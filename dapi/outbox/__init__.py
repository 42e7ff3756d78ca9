"""What has to reach the chain: kept on disk, each message once.

``CosmosMessageClient`` (cosmos_message_client.py) makes the chain's message of a batch, and ``Outbox.put`` (outbox.py)
stores it. Its Receipt is what allows an acknowledgement: the message is on disk. A batch that comes again is only
counted. ``Comparison`` (comparison.py) knows the stages and who was handed out: it bounds what is for nothing, and has
a verdict that nobody asked for kept apart. ``Outbox.observe`` is how the Submitter hears of something new;
``dapi.submission`` has the rest of the way.

Others ask what is kept: ``Outbox.counts`` by state, ``Outbox.batches`` page by page (pages.py), with the messages
themselves ``Outbox.whole_batches`` (whole.py), ``Outbox.story`` all about one (story.py), ``stage_ledger`` what became
of each node's work in a stage (ledger.py). ``Outbox.retry_some`` stores what failed again (retries.py).
``Retention`` deletes what was finished long ago (retention.py). All statements about messages are in queries.py, those
of ``dapi.submission`` included.
"""
