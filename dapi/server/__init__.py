"""The doors of dapi: routes only, which hand on to the part that does it.

``Callbacks`` (callbacks.py) stores the batches that ML nodes POST, each before its 200: the path of a request goes from
``Callbacks._store_generated`` to the node's ``BatchHandler`` in ``poc/``, as that of a WebSocket message does.
``AdminApi`` (admin.py) is for the operator: its table of routes is ``AdminApi._routes``. ``PocRoutes`` (poc_routes.py),
``EpochRoutes`` (epochs.py) and ``BatchRoutes`` (batch_routes.py) belong to it; it is handed ``BackupRoutes``
(backup_routes.py). ``HealthRoutes`` (health.py) answer on both ports, ``Metrics`` (metrics.py) on the admin port.
``OpenApiRoute`` (openapi.py) answers on each with what operations.py says of its routes. Statuses of errors are
chosen in ``http/answers.py``.
"""
