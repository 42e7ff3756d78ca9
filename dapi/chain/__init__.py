"""The way down: from the recorder to the chain."""
