"""The HTTP doors: callbacks of the ML nodes and the admin API."""
