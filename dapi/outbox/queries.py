"""Every statement about messages, by name; the tables and the states of their rows are drawn in ``database.schema``.

A statement about many messages takes their ``seq`` as one JSON list, ``:seqs``. The sqlite3 module waits for the
interpreter lock at every statement and every row of a result (docs/protocol/measured.md, 'Threads and the interpreter
lock'): so one statement serves all messages, and a long result comes as one JSON text.
"""

from __future__ import annotations

from dapi.messages import Kind, State

# A ``run`` that fits every stage, and those that fit none.
ANY_RUN = "any"
NOT_HANDED_OUT = "not handed out"
OTHERS_NONCES = "others"

# The columns that a row takes along from table to table. A part has those of _ORIGIN from its batch.
_ORIGIN = "kind, node_id, via, height, seen, seen_by_http, received_at, last_seen_at"
_ALL_BUT_MESSAGE = f"batch_id, nonces, crc32, {_ORIGIN}"
_SHARED = f"{_ALL_BUT_MESSAGE}, message"

_SEQS = "(SELECT value FROM json_each(:seqs))"
_OF_TRANSACTION = f"seq IN {_SEQS} AND state = 'in_flight' AND tx_hash = :tx_hash"
_HAS_PARTS = "EXISTS (SELECT 1 FROM unfinished AS part WHERE part.parent = unfinished.seq)"
# The state that a row of ``unfinished`` is listed and counted in.
SHOWN_STATE = "iif(state = 'stored', 'stored', 'in_flight')"
# Not damaged.
_ANY_KIND = f"kind IN ({', '.join(f'{kind.value!r}' for kind in Kind)})"
# dapi's own, whose ids have no height; an index has the same text.
OWN_KINDS = "'seed', 'hardware', 'claim'"
_OWN_KIND = f"kind IN ({OWN_KINDS})"
# In place of the table where many rows are looked at: it is in their order, and has what they are chosen by.
LISTED = "unfinished INDEXED BY unfinished_listed"
# Each value of an index's first column, found one by one; it takes as long as there are values, not rows.
_RUNS = """runs(run) AS (SELECT min(run) FROM unfinished WHERE state = 'stored' UNION ALL
    SELECT (SELECT min(run) FROM unfinished WHERE state = 'stored' AND unfinished.run > runs.run)
    FROM runs WHERE run IS NOT NULL)"""
HEIGHTS = """heights(height) AS (SELECT min(height) FROM finished UNION ALL
    SELECT (SELECT min(height) FROM finished WHERE finished.height > heights.height)
    FROM heights WHERE height IS NOT NULL)"""

# -- Taking messages in

# Store messages, unless they are kept already; ``{rows}`` are the values of each.
STORE = f"""INSERT INTO unfinished (state, {_SHARED}, run) SELECT 'stored', * FROM (VALUES {{rows}})
    WHERE NOT EXISTS (SELECT 1 FROM finished WHERE height = column7 AND batch_id = column1)
        AND NOT EXISTS (SELECT 1 FROM finished WHERE {_OWN_KIND} AND batch_id = column1)
    ON CONFLICT (batch_id) DO NOTHING"""
STORE_ROW = f"({','.join('?' * (len(_SHARED.split(',')) + 1))})"

# The finished ones of some messages, ``:batches``, a JSON list of id, height, times and how many of these by HTTP.
_AGAIN = """again AS (SELECT json_extract(value, '$[0]') AS batch_id, json_extract(value, '$[1]') AS height,
    json_extract(value, '$[2]') AS times, json_extract(value, '$[3]') AS by_http FROM json_each(:batches))"""
_FINISHED_AGAIN = f"""SELECT seq, times, by_http FROM again CROSS JOIN finished USING (height, batch_id)
    UNION SELECT seq, times, by_http FROM again CROSS JOIN finished USING (batch_id) WHERE {_OWN_KIND}"""

# Which of these messages are kept, and how often they came.
FIND = f"""WITH {_AGAIN} SELECT json_group_array(json_array(seq, batch_id, seen)) FROM (
    SELECT seq, batch_id, seen FROM again CROSS JOIN unfinished USING (batch_id)
    UNION ALL SELECT seq, batch_id, seen FROM finished WHERE seq IN (SELECT seq FROM ({_FINISHED_AGAIN})))"""

# Count further deliveries of messages that are kept: in either table, and in the ledger.
_SEEN_AGAIN = "seen = seen + times, last_seen_at = :now, seen_by_http = seen_by_http + by_http"
SEE_AGAIN = (
    f"""UPDATE unfinished SET {_SEEN_AGAIN} FROM (WITH {_AGAIN} SELECT * FROM again) AS again
        WHERE again.batch_id = unfinished.batch_id""",
    f"""UPDATE finished SET {_SEEN_AGAIN} FROM (WITH {_AGAIN} {_FINISHED_AGAIN}) AS again
        WHERE again.seq = finished.seq""",
    f"""INSERT INTO ledger SELECT height, coalesce(node_id, ''), kind, state, 0, 0, sum(times)
        FROM (WITH {_AGAIN} {_FINISHED_AGAIN}) CROSS JOIN finished USING (seq) GROUP BY height, node_id, kind, state
        ON CONFLICT DO UPDATE SET doubled = doubled + excluded.doubled""",
)

_ADD = """ON CONFLICT DO UPDATE SET batches = batches + excluded.batches, nonces = nonces + excluded.nonces,
    doubled = doubled + excluded.doubled"""
# What the ledger gains, or loses with a minus as ``{sign}``, by those rows of ``finished`` that ``{which}`` says.
_COUNT_IN_LEDGER = f"""INSERT INTO ledger
    SELECT height, coalesce(node_id, ''), kind, {{state}},
        {{sign}} count(*), {{sign}} sum(nonces), {{sign}} sum(seen - 1)
    FROM finished WHERE {{which}} GROUP BY height, node_id, kind, state {_ADD}"""

_FAILED_WHOLE = f"seq IN {_SEQS} AND state = 'failed' AND message IS NOT NULL"
FIND_FAILED = f"""WITH RECURSIVE {HEIGHTS} SELECT seq FROM heights CROSS JOIN finished USING (height)
    WHERE batch_id = :batch_id AND state = 'failed' AND message IS NOT NULL"""

# Of failed messages, how long they are.
FAILED_LENGTHS = f"""SELECT json_group_array(json_array(seq, length(message))) FROM finished WHERE {_FAILED_WHOLE}"""

# failed -> stored, but for a row that the disk has damaged; COUNT_RETRIED and DELETE_RETRIED have to follow.
RETRY = f"""INSERT OR IGNORE INTO unfinished (seq, state, attempts, {_SHARED}, run)
    SELECT seq, 'stored', attempts, {_SHARED}, run
    FROM finished WHERE {_FAILED_WHOLE}"""
_RETRIED = f"{_FAILED_WHOLE} AND seq IN (SELECT seq FROM unfinished WHERE seq IN {_SEQS})"
COUNT_RETRIED = _COUNT_IN_LEDGER.format(sign="-", which=_RETRIED, state="state")
DELETE_RETRIED = f"DELETE FROM finished WHERE {_RETRIED} RETURNING kind"

# -- Telling what is kept

# The number of batches by kind and state, without those whose state is damaged; a damaged kind is NULL. A part is none.
# What is finished is counted by the ledger, whose rows do not grow with the batches.
COUNT = f"""SELECT json_group_array(json_array(kind, state, number)) FROM (
    SELECT iif({_ANY_KIND}, kind, NULL) AS kind, state, sum(number) AS number FROM (
    SELECT kind, {SHOWN_STATE} AS state, count(*) - count(parent) AS number FROM {LISTED} GROUP BY kind, 2
    UNION ALL SELECT kind, state, sum(batches) FROM ledger GROUP BY kind, state)
    WHERE state IN ({", ".join(f"'{state}'" for state in State)}) GROUP BY 1, state)"""

_OF_STATE = "coalesce(sum(batches) FILTER (WHERE kind = 'generated' AND state = '{}'), 0)"
# The columns of a NodeLedger for each node of which there are messages of one stage.
LEDGER = f"""WITH message AS (
    SELECT node_id, kind, {SHOWN_STATE} AS state, 1 AS batches, nonces, seen - 1 AS doubled
        FROM {LISTED} WHERE height = :height AND parent IS NULL
    UNION ALL SELECT node_id, kind, state, batches, nonces, doubled FROM ledger WHERE height = :height)
    SELECT coalesce(node_id, '') AS node, coalesce(sum(batches) FILTER (WHERE kind = 'generated'), 0),
        coalesce(sum(nonces) FILTER (WHERE kind = 'generated'), 0),
        coalesce(sum(doubled) FILTER (WHERE kind = 'generated'), 0),
        {", ".join(map(_OF_STATE.format, State))},
        coalesce(sum(batches) FILTER (WHERE kind = 'validated'), 0)
    FROM message GROUP BY node HAVING sum(batches) > 0"""

# The stages that something may still be sent for.
_LATEST_STAGES = "FROM stages ORDER BY height DESC LIMIT 50"
_LATEST = f"latest AS (SELECT height, run {_LATEST_STAGES})"
# With the last blocks of their windows.
STAGE_RUNS = f"""SELECT height, run, iif(json_valid(stage), json_extract(stage, '$.batches.last'), NULL),
    iif(json_valid(stage), json_extract(stage, '$.validations.last'), NULL) {_LATEST_STAGES}"""

# What is stored and not sent, by stage, node and kind, with its bytes: of another run than its stage, not handed out,
# with others' nonces, or (height NULL) of no stage that is known. What is of a stage whose run is not known yet is not
# told.
NOT_OF_THEIR_STAGE = f"""WITH {_LATEST}, other AS (
    SELECT run, height FROM unfinished WHERE state = 'stored' AND run > '' GROUP BY run, height
    EXCEPT SELECT run, height FROM latest EXCEPT SELECT '{ANY_RUN}', height FROM latest)
    SELECT latest.height, node_id, kind, count(*), sum(length(message)),
        other.run = '{OTHERS_NONCES}' AS has_others_nonces
    FROM other JOIN unfinished USING (run, height) LEFT JOIN latest ON latest.height = other.height
    WHERE state = 'stored' AND (latest.height IS NULL OR latest.run IS NOT NULL)
    GROUP BY latest.height, node_id, kind, has_others_nonces"""

# What waits of each node; the parts of a batch are in its own row.
WAITING_OF_NODES = f"""SELECT node_id, count(*), sum(iif(kind = 'generated', nonces, 0)) FROM {LISTED}
    WHERE parent IS NULL GROUP BY node_id"""

# Of the two latest stages, the nodes of which so much is finished already.
HAD_ENOUGH = """SELECT height, node_id FROM ledger WHERE kind = 'generated'
    AND height >= (SELECT min(height) FROM (SELECT height FROM stages ORDER BY height DESC LIMIT 2))
    GROUP BY height, node_id HAVING sum(batches) >= :messages OR sum(nonces) >= :nonces"""

NO_SUCH_STAGE = "not sent: the chain has told of no such stage"

_EARLIER = "earlier_transactions (seq, answer, tx_hash, reason, included_height, first_at, last_at, times)"
_OR_ONCE_MORE = """ON CONFLICT (seq, answer) DO UPDATE SET tx_hash = excluded.tx_hash, reason = excluded.reason,
    last_at = excluded.last_at, times = times + 1"""

# Keep what became of a transaction of messages that go on, for their story; of those with one answer the last is kept.
NOTE_TRANSACTION = f"""INSERT INTO {_EARLIER}
    SELECT DISTINCT coalesce(parent, seq), :answer, :tx_hash, :reason, :height, :now, :now, 1
    FROM unfinished WHERE {_OF_TRANSACTION} {_OR_ONCE_MORE}"""
# The same for the parts of a batch that are confirmed: the last one alone is told in the batch's row.
NOTE_PARTS = f"""INSERT INTO {_EARLIER}
    SELECT DISTINCT parent, :tx_hash, :tx_hash, NULL, :height, :now, :now, 1
    FROM unfinished WHERE {_OF_TRANSACTION} AND parent IS NOT NULL {_OR_ONCE_MORE}"""
# The same for failed messages that are sent again.
NOTE_FAILED = f"""INSERT INTO {_EARLIER}
    SELECT seq, 'failed ' || tx_hash, tx_hash, reason, included_height, finished_at, finished_at, 1
    FROM finished WHERE {_FAILED_WHOLE} AND tx_hash IS NOT NULL {_OR_ONCE_MORE}"""

# The ids that begin with ``:begin``: ``:end`` is the least text after all of them.
BEGINNING_WITH = f"""WITH RECURSIVE {HEIGHTS}
    SELECT batch_id FROM unfinished WHERE batch_id >= :begin AND batch_id < :end AND parent IS NULL
    UNION ALL SELECT batch_id FROM heights CROSS JOIN finished USING (height)
        WHERE batch_id >= :begin AND batch_id < :end LIMIT 2"""

# What a batch's row does not tell of it: attempts, deliveries by HTTP, its parts by state, its transactions.
STORY = """SELECT attempts, seen_by_http FROM unfinished WHERE seq = :seq
    UNION ALL SELECT attempts, seen_by_http FROM finished WHERE seq = :seq"""
PARTS = "SELECT state, count(*) FROM unfinished WHERE parent = :seq GROUP BY state"
PARTS_IN_FLIGHT = """SELECT DISTINCT tx_hash FROM unfinished WHERE parent = :seq AND state = 'in_flight'
    ORDER BY tx_hash LIMIT :limit"""
IN_FLIGHT_HASH = "SELECT tx_hash FROM unfinished WHERE seq = :seq AND state = 'in_flight'"
EARLIER = """SELECT tx_hash, reason, included_height, first_at, last_at, times FROM earlier_transactions
    WHERE seq = :seq ORDER BY first_at, last_at LIMIT :limit"""

# The bodies of messages in either table, and how long they are.
LENGTHS = f"""SELECT seq, coalesce(length(message), 0) FROM unfinished WHERE seq IN {_SEQS}
    UNION ALL SELECT seq, coalesce(length(message), 0) FROM finished WHERE seq IN {_SEQS}"""
WHOLE = f"""SELECT seq, message FROM unfinished WHERE seq IN {_SEQS}
    UNION ALL SELECT seq, message FROM finished WHERE seq IN {_SEQS}"""

# What failed or expired in the latest ``:stages`` stages, and in later ones that are not known yet: of each stage, kind
# and state how many messages, and the reason of the latest; without those that were not to be sent. It finds the stages
# one by one, and looks at no other row.
LOSSES = f"""WITH RECURSIVE heights(height) AS (
    SELECT coalesce(min(height), 1) FROM (SELECT height FROM stages ORDER BY height DESC LIMIT :stages)
    UNION ALL SELECT (SELECT min(height) FROM finished WHERE state != 'confirmed' AND finished.height > heights.height)
    FROM heights WHERE height IS NOT NULL)
    SELECT height, kind, state, reason IS :damaged AS is_damaged, count(*), coalesce(reason, ''), max(seq)
    FROM heights JOIN finished USING (height)
    WHERE kind IN (SELECT value FROM json_each(:kinds)) AND state != 'confirmed' AND state IN ('failed', 'expired')
        AND (run IN ('', '{ANY_RUN}') OR run IS (SELECT run FROM stages WHERE stages.height = finished.height))
    GROUP BY height, kind, state, is_damaged ORDER BY height, kind, state"""

# Why a row of ``unfinished`` is in its state.
REASON = f"""iif(state = 'stored' AND run != '', coalesce(
    iif(run = '{OTHERS_NONCES}', 'not sent: its nonces are not those of its node', NULL),
    (SELECT CASE WHEN unfinished.run IN ('{ANY_RUN}', stages.run) THEN coalesce(unfinished.reason, '')
        WHEN unfinished.run = '{NOT_HANDED_OUT}' THEN 'not sent: a verdict that the node was not asked for'
        WHEN stages.run IS NULL THEN 'waits for the block hash of its stage'
        ELSE 'not sent: its block hash or public key is not that of the stage' END
        FROM stages WHERE stages.height = unfinished.height),
    '{NO_SUCH_STAGE}'), reason)"""

# The stages and kinds of which messages are stored, or are in flight and came before a time.
STAGES_UNFINISHED = f"""SELECT DISTINCT height, kind, state FROM {LISTED}
    WHERE {_ANY_KIND} AND (state = 'stored' OR state = 'in_flight' AND received_at < :received_before)"""

# Whether a stored message of a stage and kind came before a time.
HAS_WAITED = f"""SELECT EXISTS (SELECT 1 FROM {LISTED}
    WHERE state = 'stored' AND height = :height AND kind = :kind AND received_at < :received_before)"""

OLDEST_RECEIVED_AT = "SELECT (SELECT received_at FROM unfinished ORDER BY seq LIMIT 1)"

# The confirmed verdicts on one participant, who stands first in the canonical bytes of a verdict.
CONFIRMED_VERDICTS = """SELECT message FROM finished
    WHERE height = :height AND kind = 'validated' AND state = 'confirmed' AND substr(message, 1, :length) = :begin"""

# -- Choosing what is sent

# The stage and kind that go first, of these ``:kinds``, a JSON list in the order of what is sent first, the run of
# their rows, and the last block that may have them. A seed is sent before all else: without it the whole stage counts
# nothing. Then comes what expires first: nodes have to be declared when their PoC starts, and what has no known window
# comes last. Looks at one row of each, and at none that is of another run than its stage or of no stage.
NEXT_GROUP = f"""WITH RECURSIVE compared_with_none(height) AS (
    SELECT min(height) FROM unfinished WHERE state = 'stored' AND run = ''
    UNION ALL SELECT (SELECT min(height) FROM unfinished
        WHERE state = 'stored' AND run = '' AND unfinished.height > compared_with_none.height)
    FROM compared_with_none WHERE height IS NOT NULL),
    {_LATEST},
    stage(height, run) AS (SELECT height, '' FROM compared_with_none
        UNION ALL SELECT height, '{ANY_RUN}' FROM latest UNION ALL SELECT height, run FROM latest WHERE run IS NOT NULL)
    SELECT stage.height, kind.value, stage.run, coalesce(CASE kind.value WHEN 'hardware' THEN stage.height
        ELSE (SELECT json_extract(stages.stage, CASE kind.value WHEN 'generated' THEN '$.batches.last'
                WHEN 'validated' THEN '$.validations.last' WHEN 'claim' THEN '$.claims.last' END)
            FROM stages WHERE stages.height = stage.height AND json_valid(stages.stage)) END, 1 << 62) AS last
    FROM stage, json_each(:kinds) AS kind
    WHERE EXISTS (SELECT 1 FROM unfinished WHERE state = 'stored' AND unfinished.run = stage.run
        AND unfinished.height = stage.height AND unfinished.kind = kind.value AND not_before <= :height)
    ORDER BY kind.value != 'seed', last, stage.height, kind.key, stage.run LIMIT 1"""

# How many of a stage, kind and run are stored, counted up to a limit; the index alone tells.
COUNT_TO_SEND = """SELECT count(*) FROM (SELECT 1 FROM unfinished WHERE state = 'stored' AND run = :run
    AND height = :stage_height AND kind = :kind LIMIT :limit)"""

_CANDIDATES = """SELECT seq, kind, height, node_id, attempts, max_messages, nonces, length(message) FROM unfinished
    WHERE state = 'stored'"""
# Of other nodes than those of a JSON list, ``:waiting``, from the row ``:first`` on.
NEXT = f"""{_CANDIDATES} AND run = :run AND height = :stage_height AND kind = :kind AND seq >= :first
    AND coalesce(node_id, '') NOT IN (SELECT value FROM json_each(:waiting)) AND not_before <= :height
    ORDER BY seq LIMIT :limit"""
NEXT_PARTS = f"{_CANDIDATES} AND parent = :parent ORDER BY seq LIMIT :limit"

BODIES = f"SELECT seq, coalesce(parent, seq), crc32, message FROM unfinished WHERE seq IN {_SEQS}"

# A new row for a part of the row ``seq``, which may be a part itself.
ADD_PART = f"""INSERT INTO unfinished (state, parent, {_SHARED})
    SELECT 'stored', coalesce(parent, seq), :batch_id, :nonces, :crc32, {_ORIGIN}, :message
    FROM unfinished WHERE seq = :seq"""

# stored -> in_parts, unless the row that was cut is a part: DELETE_CUT_PART deletes that.
PUT_IN_PARTS = (
    "UPDATE unfinished SET state = 'in_parts', reason = NULL WHERE seq = :seq AND parent IS NULL RETURNING kind"
)
DELETE_CUT_PART = "DELETE FROM unfinished WHERE seq = :seq AND parent IS NOT NULL RETURNING parent"

# -- Into a transaction, and out of it

# stored -> in_flight: all of the messages, or none when one of them is not stored any more.
PUT_IN_FLIGHT = f"""UPDATE unfinished
    SET state = 'in_flight', tx_hash = :tx_hash, tx_timeout_ns = :timeout_ns, not_before = :first_height,
        attempts = attempts + 1
    WHERE seq IN {_SEQS}
        AND json_array_length(:seqs) = (SELECT count(*) FROM unfinished WHERE seq IN {_SEQS} AND state = 'stored')
    RETURNING parent"""

# No transaction's timestamp may be given twice, by whichever process.
SAVE_LAST_TIMEOUT = """INSERT INTO numbers (name, value) VALUES ('last_timeout_ns', :timeout_ns)
    ON CONFLICT (name) DO UPDATE SET value = max(value, :timeout_ns)"""
LAST_TIMEOUT = "SELECT coalesce(max(value), 0) FROM numbers WHERE name = 'last_timeout_ns'"

IN_FLIGHT = f"""SELECT tx_hash, tx_timeout_ns, not_before, sum(length(message)) OVER (PARTITION BY tx_hash),
    seq, kind, height, attempts, max_messages FROM {LISTED} WHERE {_ANY_KIND} AND state = 'in_flight'
    ORDER BY tx_hash, seq"""

# in_flight -> stored. It stays one attempt more only if the chain has said nothing of the transaction.
STORE_AGAIN = f"""UPDATE unfinished
    SET state = 'stored', tx_hash = NULL, tx_timeout_ns = NULL, reason = :reason, not_before = :not_before,
        max_messages = iif(:max_messages, :max_messages, max_messages), attempts = attempts - iif(:has_vanished, 0, 1)
    WHERE {_OF_TRANSACTION} RETURNING parent"""

# In place of STORE_AGAIN for parts whose batch is failing or expiring.
DELETE_PARTS_NOT_WANTED = f"""DELETE FROM unfinished WHERE {_OF_TRANSACTION} AND EXISTS (SELECT 1
    FROM unfinished AS batch WHERE batch.seq = unfinished.parent AND batch.state IN ('failing', 'expiring'))
    RETURNING parent"""

DELETE_CONFIRMED_PARTS = f"DELETE FROM unfinished WHERE {_OF_TRANSACTION} AND parent IS NOT NULL RETURNING parent"
WHOLE_IN_TRANSACTION = f"SELECT seq FROM unfinished WHERE {_OF_TRANSACTION} AND parent IS NULL"
BATCHES_IN_TRANSACTION = f"SELECT DISTINCT coalesce(parent, seq) FROM unfinished WHERE {_OF_TRANSACTION}"
BATCHES_TO_EXPIRE = f"""WITH RECURSIVE {_RUNS}
    SELECT DISTINCT coalesce(parent, seq) FROM runs CROSS JOIN unfinished USING (run)
    WHERE state = 'stored' AND height = :height AND kind = :kind LIMIT :limit"""

# What is of no stage and never can be: at a height that has passed, or that nobody can have come to yet. ``:known`` are
# the heights of stages that the chain has told of, a JSON list; not all of them have begun.
WITHOUT_STAGE = f"""WITH {_LATEST} SELECT seq FROM unfinished WHERE state = 'stored' AND run > ''
    AND (height <= :height OR height > :height + :ahead)
    AND height NOT IN (SELECT height FROM latest) AND height NOT IN (SELECT value FROM json_each(:known))
    LIMIT :limit"""

# -- Handing out

HAND_OUT = """INSERT OR IGNORE INTO handed_out (height, address, node_id)
    SELECT :height, json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(:pairs)"""
# All but those of a stage and of the one before it.
FORGET_HANDED_OUT = """DELETE FROM handed_out
    WHERE height < (SELECT max(height) FROM handed_out WHERE height < :height)"""
HANDED_OUT = "SELECT json_group_array(json_array(height, address, node_id)) FROM handed_out"

# -- Another chain

# What was made for the chain before; its transactions can be in no block of this one.
DELETE_ALL_PARTS = "DELETE FROM unfinished WHERE parent IS NOT NULL"
ALL_UNFINISHED = "SELECT seq FROM unfinished"
COUNT_FAILED = _COUNT_IN_LEDGER.format(sign="-", which="state = 'failed'", state="state")
COUNT_EXPIRED = _COUNT_IN_LEDGER.format(sign="", which="state = 'failed'", state="'expired'")
EXPIRE_FAILED = "UPDATE finished SET state = 'expired' WHERE state = 'failed' RETURNING kind"
# What was set apart under the same name before makes room: two chains may have told the same block hash, or none.
SET_APART = "UPDATE OR REPLACE finished SET batch_id = :former || '/' || batch_id, height = -height WHERE height > 0"
# Several chains may have had a stage at one height.
SET_LEDGER_APART = (
    f"""INSERT INTO ledger SELECT -height, node_id, kind, state, batches, nonces, doubled FROM ledger WHERE height > 0
        {_ADD}""",
    "DELETE FROM ledger WHERE height > 0",
)
FORGET_STAGES = "DELETE FROM stages"
FORGET_ALL_HANDED_OUT = "DELETE FROM handed_out"
FORGET_LAST_TIMEOUT = "DELETE FROM numbers WHERE name = 'last_timeout_ns'"

# -- Coming to an end

# Of batches that fail or expire: all parts but those in flight in other transactions.
DELETE_PARTS = f"DELETE FROM unfinished WHERE parent IN {_SEQS} AND (state = 'stored' OR tx_hash = :tx_hash)"

# in_parts -> failing or expiring: batches of which a part is still in flight.
WAIT_FOR_PARTS = f"""UPDATE unfinished
    SET state = iif(:state = 'failed', 'failing', 'expiring'), tx_hash = :tx_hash, reason = :reason
    WHERE seq IN {_SEQS} AND {_HAS_PARTS} RETURNING seq"""

WITHOUT_PARTS = f"SELECT seq, state, tx_hash, reason FROM unfinished WHERE seq IN {_SEQS} AND NOT {_HAS_PARTS}"

# Into the other table; COUNT_FINISHED and DELETE have to follow. Only what the chain has loses its body: a failed batch
# may be sent again, and a dispute may need any of the others, but not what no stage was for. A verdict is short, and
# tells later whether the chain has the same one. The last transaction of a failed batch is no attempt: the chain
# has said that it did nothing.
FINISH = f"""INSERT INTO finished
    (seq, state, finished_at, attempts, tx_hash, included_height, reason, {_SHARED}, run)
    SELECT seq, :state, :now, iif(:state = 'failed', max(0, attempts - 1), attempts), :tx_hash, :height,
        :reason || iif(:state = 'expired' AND state = 'stored' AND {REASON} NOT IN ('', :reason),
            '; before: ' || {REASON}, ''),
        {_ALL_BUT_MESSAGE}, iif(:keeps_body AND (:state != 'confirmed' OR kind = 'validated'), message, NULL), run
    FROM unfinished WHERE seq IN {_SEQS}"""
COUNT_FINISHED = _COUNT_IN_LEDGER.format(sign="", which=f"seq IN {_SEQS}", state="state")
DELETE = f"DELETE FROM unfinished WHERE seq IN {_SEQS} RETURNING kind, state"

# -- Long after the end

# The start of the second epoch before the latest, or 0 where fewer are known. Where no stage is known at all, nothing
# waits for a window.
_KEPT_FROM = """coalesce(
    (SELECT height FROM stages WHERE json_valid(stage) AND NOT json_extract(stage, '$.is_confirmation')
        ORDER BY height DESC LIMIT 1 OFFSET 2),
    iif(EXISTS (SELECT 1 FROM stages), 0, 1 << 62))"""
# Of the next rows, those that may be deleted, as ``:seqs``, their number, the last one of all, and whether each of them
# came later than what may be deleted, as all that follow did.
FINISHED_BEFORE = f"""WITH next AS (
        SELECT seq, kind, height, received_at, finished_at, coalesce(length(message), 0) AS bytes
        FROM finished WHERE seq > :after ORDER BY seq LIMIT :limit),
    looked_at AS (SELECT *, sum(bytes) OVER (ORDER BY seq) - bytes AS bytes_before FROM next),
    step AS (SELECT *, finished_at < :before AND kind IN ('generated', 'validated') AND height < {_KEPT_FROM} AS is_old
        FROM looked_at WHERE bytes_before < :max_bytes)
    SELECT json_group_array(seq) FILTER (WHERE is_old), count(*) FILTER (WHERE is_old), max(seq),
        min(received_at) >= :before FROM step"""
DELETE_STORIES = f"DELETE FROM earlier_transactions WHERE seq IN {_SEQS}"
DELETE_FINISHED = f"DELETE FROM finished WHERE seq IN {_SEQS}"
_OF_NO_STAGE = f"height != 0 AND height < {_KEPT_FROM} AND height NOT IN (SELECT height FROM stages)"
MERGE_LEDGER = (
    f"""INSERT INTO ledger SELECT 0, '', kind, state, sum(batches), sum(nonces), sum(doubled) FROM ledger
        WHERE {_OF_NO_STAGE} GROUP BY kind, state {_ADD}""",
    f"DELETE FROM ledger WHERE {_OF_NO_STAGE}",
)
