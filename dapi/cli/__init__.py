"""The command line ``dapi``, beside the twistd plugin: looks at a running dapi and tells it what to do.

``run`` (main.py) is the console script. Each command speaks with the admin API through an ``AdminClient``
(admin_client.py), but for ``dapi check`` and ``dapi restore``, which work while no dapi runs. The commands are in
status.py, nodes.py, batches.py, poc.py and database.py, each beside what it prints; show.py has the tables. session.py
gives every command the same options, and each error its exit code (exit_codes.py). docs/cli.md tells all of it.

Whatever takes time to import is imported inside functions: ``dapi --help`` imports click alone.
"""
