"""The whole of dapi as one service, for twistd or for anybody's MultiService.

``make_service`` returns a ``DapiService`` (lifecycle.py), which owns the ``Parts`` (assembly.py): everything is made
before anything is started. A start goes from the ground up: the database, the port for the ML nodes' callbacks, the
broker, the chain, the admin port; then the nodes of the configuration are registered, in the background. A stop ends
the intake and the submitting side by side, lets the disk write what has come, and closes the database. A second start
makes all parts anew, so it knows only what the database says. ``ServiceStatus`` (status.py) is what
``GET /admin/v1/status`` shows. ``SystemdNotifier`` (systemd.py) is for the process that twistd runs.
"""

from dapi.service.lifecycle import DapiService, make_service

__all__ = ["DapiService", "make_service"]
