"""The tables of the database, and the states in which a message is kept there.

A message is one row: in ``unfinished`` with its body until a block or its window has decided, then in ``finished``.
A batch that is too large for one message has more rows, one for each part, which point to it by ``parent``. The column
``state`` says alone where a row is on its way; the words on the arrows are functions of ``dapi.outbox.outbox`` and
``dapi.submission.rows``::

                     put_in_flight                confirm
    put ──▶ stored ────────────────▶ in_flight ──────────────▶ confirmed
            ▲ │ │ │                   │     │      fail
            │ │ │ │    store_again    │     └────────────────▶ failed ── retry ──▶ stored
            └─│─│─│───────────────────┘
              │ │ │      expire
              │ │ └──────────────────────────────────────────▶ expired
              │ │   damaged on disk
              │ └────────────────────────────────────────────▶ failed
              │ cut                        confirm the last part
              └─────▶ in_parts ──────────────────────────────▶ confirmed
                        │  │ fail a part       no part is in flight any more
                        │  └──────▶ failing ─────────────────▶ failed
                        │ expire the parts     no part is in flight any more
                        └─────────▶ expiring ────────────────▶ expired

A part goes the way of the first line, and its row is deleted at the end of it. When a batch fails or expires, its parts
that are stored are deleted at once; those that are in flight are followed to their end, so that no part is under way
when the batch is sent again. An ``expiring`` batch of which a part fails becomes ``failing``.
"""

from __future__ import annotations

import enum

from dapi.messages import State


class RowState(enum.StrEnum):
    """The states of the rows in ``unfinished``; those in ``finished`` are the other three of State."""

    STORED = "stored"
    IN_FLIGHT = "in_flight"
    IN_PARTS = "in_parts"
    FAILING = "failing"
    EXPIRING = "expiring"

    @property
    def shown(self) -> State:
        """The state that the batch is listed and counted in."""
        return State.STORED if self is RowState.STORED else State.IN_FLIGHT


def _name_verdicts(table: str, condition: str) -> str:
    """Give verdicts the ids that their stage and participant have, unless another verdict has them."""
    length = f"unicode(CAST(substr({table}.message, 2, 1) AS TEXT))"
    batch_id = f"'verdict-' || {table}.height || '-' || CAST(substr({table}.message, 3, {length}) AS TEXT)"
    other = "finished" if table == "unfinished" else "unfinished"
    return f"""UPDATE OR IGNORE {table} SET batch_id = {batch_id}
        WHERE kind = 'validated' AND {condition} AND substr(message, 1, 1) = x'12' AND batch_id NOT LIKE 'verdict-%'
            AND NOT EXISTS (SELECT 1 FROM {other} AS other WHERE other.batch_id = {batch_id});"""


# The statements that lead from each version of the schema to the next; what was released is never changed.
#
# ``seq`` numbers the rows of both tables and is never given twice. ``height`` is the start of the message's PoC stage,
# ``seen`` how often it came, ``attempts`` the number of its transactions of which the chain has said nothing. The next
# one has at most ``max_messages`` (0: any number), and is in no block before ``not_before``. ``run`` says what of its
# stage a message is compared with before it is sent: with the stage's run, with its height alone ('any'), with nothing
# (''); a stage's own is NULL until it is known. A verdict that nobody asked for is 'not handed out', which is the run
# of no stage; ``handed_out`` has the addresses that were given to each node to validate. Of what is finished, only what
# the chain does not have keeps its body (deleting a row gives its space back, emptying it does not), unless there never
# was a stage for it. A long column stands last: SQLite reads those before it alone.
# Each page that a commit changes costs it 16 kB: so what is taken in enters few indexes, and those at their end.
# ``unfinished_listed`` is in the order of the rows, and has what lists and counts read of them: it is read instead of
# the rows. The ids of finished rows are found by stage, so that those of former stages stay out of the way; ids of
# dapi's own messages have no height, and are found without one. ``ledger`` counts all that was ever finished, and is
# right whatever rows of ``finished`` are gone; its ``node_id`` is '' where no node is known.
# ``chain`` has one row, once a chain was seen: its id, and one of its latest blocks, of which the hash may be ''. What
# is of another chain is set apart: it is finished, its id begins with that chain's, and its height is negative, so that
# nothing finds it for this one. ``block_hash`` of a stage is what its nodes compute with, as the chain writes it; it is
# NULL until it is known, as ``run`` is.
# ``seen_by_http`` is how many of the ``seen`` came by HTTP, NULL for what an earlier version took in.
# ``earlier_transactions`` has what was answered to the transactions that a message was in before: of those with one
# ``answer`` the last, and how many there were, so that their number is bounded.
SCHEMA_VERSIONS = (
    """
    CREATE TABLE waiting (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, batch_id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, state TEXT NOT NULL,
        node_id TEXT, via TEXT NOT NULL, height INTEGER NOT NULL, nonces INTEGER NOT NULL,
        seen INTEGER NOT NULL, received_at REAL NOT NULL, last_seen_at REAL NOT NULL, parent INTEGER,
        attempts INTEGER NOT NULL DEFAULT 0, alone INTEGER NOT NULL DEFAULT 0, not_before INTEGER NOT NULL DEFAULT 0,
        tx_hash TEXT, tx_timeout_ns INTEGER, reason TEXT, crc32 INTEGER NOT NULL, message BLOB NOT NULL
    );
    CREATE INDEX waiting_by_kind ON waiting (kind, state);
    CREATE INDEX waiting_by_node ON waiting (node_id, kind, state);
    CREATE INDEX waiting_to_send ON waiting (height, kind) WHERE state = 'stored';
    CREATE INDEX waiting_parts ON waiting (parent) WHERE parent IS NOT NULL;
    CREATE TABLE finished (
        seq INTEGER PRIMARY KEY, batch_id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, state TEXT NOT NULL,
        node_id TEXT, via TEXT NOT NULL, height INTEGER NOT NULL, nonces INTEGER NOT NULL,
        seen INTEGER NOT NULL, received_at REAL NOT NULL, last_seen_at REAL NOT NULL, finished_at REAL NOT NULL,
        attempts INTEGER NOT NULL, tx_hash TEXT, included_height INTEGER, reason TEXT, crc32 INTEGER, message BLOB
    );
    CREATE INDEX finished_by_kind ON finished (kind, state);
    CREATE INDEX finished_by_node ON finished (node_id, kind, state);
    CREATE INDEX waiting_by_stage ON waiting (height, kind, state, node_id);
    CREATE INDEX finished_by_stage ON finished (height, kind, state, node_id);
    CREATE TABLE stages (
        height INTEGER PRIMARY KEY, stage TEXT NOT NULL, node_count INTEGER NOT NULL,
        is_handed_out INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
    CREATE TABLE nodes (
        num INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, config TEXT NOT NULL, enabled INTEGER NOT NULL,
        removed INTEGER NOT NULL
    );
    """,
    # Until here a row said in several columns that it was sent in parts, and what its batch was to become.
    """
    ALTER TABLE waiting RENAME TO unfinished;
    UPDATE unfinished SET state = iif(reason IS NULL, 'in_parts', iif(tx_hash IS NULL, 'expiring', 'failing')),
        tx_hash = nullif(tx_hash, '')
        WHERE state = 'in_flight' AND tx_timeout_ns IS NULL;
    DROP INDEX waiting_by_kind; DROP INDEX waiting_by_node; DROP INDEX waiting_by_stage;
    DROP INDEX waiting_to_send; DROP INDEX waiting_parts;
    CREATE INDEX unfinished_by_kind ON unfinished (kind, state);
    CREATE INDEX unfinished_by_node ON unfinished (node_id, kind, state);
    CREATE INDEX unfinished_to_send ON unfinished (height, kind) WHERE state = 'stored';
    CREATE INDEX unfinished_parts ON unfinished (parent) WHERE parent IS NOT NULL;
    CREATE INDEX unfinished_by_stage ON unfinished (height, kind, state, node_id);
    """,
    # Until here a verdict had the id of its content. In its message the participant's address stands first, after the
    # field's number and its length. Of two verdicts on one participant the one that is closest to the chain counts.
    f"""
    {_name_verdicts("finished", "state = 'confirmed'")}
    {_name_verdicts("unfinished", "state != 'stored'")}
    {_name_verdicts("unfinished", "state = 'stored'")}
    {_name_verdicts("finished", "state != 'confirmed'")}
    DELETE FROM unfinished WHERE kind = 'validated' AND state = 'stored' AND batch_id NOT LIKE 'verdict-%';
    """,
    # Until here a message went into its next transaction alone, or with any number of others.
    "ALTER TABLE unfinished RENAME COLUMN alone TO max_messages;",
    # Until here no batch was compared with its stage.
    """
    ALTER TABLE unfinished ADD COLUMN run TEXT NOT NULL DEFAULT '';
    ALTER TABLE stages ADD COLUMN run TEXT;
    DROP INDEX unfinished_to_send;
    CREATE INDEX unfinished_to_send ON unfinished (run, height, kind) WHERE state = 'stored';
    """,
    # Until here a database did not know which chain it is of.
    "CREATE TABLE chain (id TEXT NOT NULL);",
    # Until here nothing told of the transactions of a message before its last one, nor which way a batch came again.
    """
    ALTER TABLE unfinished ADD COLUMN seen_by_http INTEGER;
    ALTER TABLE finished ADD COLUMN seen_by_http INTEGER;
    CREATE TABLE earlier_transactions (
        seq INTEGER NOT NULL, answer TEXT NOT NULL, tx_hash TEXT NOT NULL, reason TEXT, included_height INTEGER,
        first_at REAL NOT NULL, last_at REAL NOT NULL, times INTEGER NOT NULL, PRIMARY KEY (seq, answer)
    ) WITHOUT ROWID;
    """,
    # Until here it did not know any block of that chain, and no stage its block hash.
    """
    ALTER TABLE chain ADD COLUMN height INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE chain ADD COLUMN time_ns INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE chain ADD COLUMN hash TEXT NOT NULL DEFAULT '';
    ALTER TABLE stages ADD COLUMN block_hash TEXT;
    """,
    # Until here nodes were told a callback base without a token, which those that run still have: 0 stands for that.
    """
    ALTER TABLE nodes ADD COLUMN token_num INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE nodes ADD COLUMN old_token_num INTEGER;
    ALTER TABLE nodes ADD COLUMN old_stage INTEGER NOT NULL DEFAULT -1;
    UPDATE nodes SET old_token_num = 0, old_stage = coalesce((SELECT max(height) FROM stages), -1);
    """,
    # Until here nothing of PoC v2 was kept. A body is a file of this name in the folder of the relay; ``digest`` is
    # that of target and body; ``spaced`` has start, stop and step of evenly spaced nonces.
    """
    CREATE TABLE relay (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL UNIQUE, name TEXT NOT NULL, target BLOB NOT NULL,
        headers TEXT NOT NULL, size INTEGER NOT NULL, received_at REAL NOT NULL, peer TEXT NOT NULL, model TEXT,
        kind TEXT, height INTEGER, node_num INTEGER, spaced TEXT, state TEXT NOT NULL DEFAULT 'waiting', reason TEXT,
        seen INTEGER NOT NULL DEFAULT 1
    );
    CREATE INDEX relay_by_state ON relay (state, height);
    """,
    # Until here a batch that was sent once more after it had failed was compared with nothing, and a verdict with the
    # height of its stage alone.
    """
    ALTER TABLE finished ADD COLUMN run TEXT NOT NULL DEFAULT '';
    CREATE TABLE handed_out (
        height INTEGER NOT NULL, address TEXT NOT NULL, node_id TEXT NOT NULL, PRIMARY KEY (height, address, node_id)
    ) WITHOUT ROWID;
    """,
    # Until here nothing was kept of what is watched of PoC v2. ``record`` is a StageRecord in JSON.
    """
    CREATE TABLE poc_v2_stages (
        height INTEGER NOT NULL, model TEXT NOT NULL, record TEXT NOT NULL, PRIMARY KEY (height, model)
    ) WITHOUT ROWID;
    """,
    # Until here each row entered an index for each filter of a listing, ids of finished rows were in one index of all
    # stages, and what was finished was counted by its rows. There may be millions: nothing here sorts them.
    """
    DROP INDEX unfinished_by_kind; DROP INDEX unfinished_by_node; DROP INDEX unfinished_by_stage;
    DROP INDEX finished_by_kind; DROP INDEX finished_by_node; DROP INDEX finished_by_stage;
    CREATE INDEX unfinished_listed
        ON unfinished (seq, kind, state, node_id, height, parent, nonces, seen, received_at);
    ALTER TABLE finished RENAME TO finished_before;
    CREATE TABLE finished (
        seq INTEGER PRIMARY KEY, batch_id TEXT NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL,
        node_id TEXT, via TEXT NOT NULL, height INTEGER NOT NULL, nonces INTEGER NOT NULL, run TEXT NOT NULL DEFAULT '',
        seen INTEGER NOT NULL, seen_by_http INTEGER, received_at REAL NOT NULL, last_seen_at REAL NOT NULL,
        finished_at REAL NOT NULL, attempts INTEGER NOT NULL, tx_hash TEXT, included_height INTEGER, reason TEXT,
        crc32 INTEGER, message BLOB
    );
    CREATE UNIQUE INDEX finished_ids ON finished (height, batch_id);
    CREATE UNIQUE INDEX finished_own_ids ON finished (batch_id) WHERE kind IN ('seed', 'hardware', 'claim');
    CREATE INDEX finished_by_kind ON finished (kind, state);
    CREATE INDEX finished_by_node ON finished (node_id, kind, state);
    CREATE INDEX finished_by_stage ON finished (height, kind, state) WHERE state != 'confirmed' OR kind = 'validated';
    CREATE TABLE ledger (
        height INTEGER NOT NULL, node_id TEXT NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL,
        batches INTEGER NOT NULL, nonces INTEGER NOT NULL, doubled INTEGER NOT NULL,
        PRIMARY KEY (height, node_id, kind, state)
    ) WITHOUT ROWID;
    INSERT OR IGNORE INTO finished (seq, batch_id, kind, state, node_id, via, height, nonces, run, seen, seen_by_http,
            received_at, last_seen_at, finished_at, attempts, tx_hash, included_height, reason, crc32, message)
        SELECT seq, batch_id, kind, state, node_id, via, height, nonces, run, seen, seen_by_http,
            received_at, last_seen_at, finished_at, attempts, tx_hash, included_height, reason, crc32, message
        FROM finished_before ORDER BY seq;
    DROP TABLE finished_before;
    INSERT INTO ledger SELECT height, coalesce(node_id, ''), kind, state, 1, nonces, seen - 1 FROM finished WHERE true
        ON CONFLICT DO UPDATE SET batches = batches + 1, nonces = nonces + excluded.nonces,
            doubled = doubled + excluded.doubled;
    """,
    # Until here each body of PoC v2 had a file of its own; it begins in its file at this byte.
    """
    ALTER TABLE relay ADD COLUMN offset INTEGER NOT NULL DEFAULT 0;
    """,
)
