"""The statements about which chain the database is of."""

from __future__ import annotations

CHAIN = "SELECT id, height, time_ns, hash FROM chain"
# The block at which the latest regular stage below a height began, of those whose block is known: height and hash.
LATEST_STAGE_BLOCK = """SELECT height, block_hash FROM stages
    WHERE height < :height AND block_hash != '' AND json_valid(stage) AND NOT json_extract(stage, '$.is_confirmation')
    ORDER BY height DESC LIMIT 1"""
FORGET_CHAIN = "DELETE FROM chain"
ENTER_CHAIN = "INSERT INTO chain (id, height, time_ns, hash) VALUES (:chain_id, :height, :time_ns, :hash)"
KEEP_BLOCK = "UPDATE chain SET height = :height, time_ns = :time_ns, hash = :hash WHERE id = :chain_id"
