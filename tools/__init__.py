"""Programs that work on the project itself; nothing of dapi imports them."""
