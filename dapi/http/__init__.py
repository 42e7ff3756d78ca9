"""An HTTP request and its answer, on both sides; nothing here knows what a request means."""
