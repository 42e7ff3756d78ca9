"""The way of a message from the outbox into a block: chosen, signed, sent and confirmed."""
