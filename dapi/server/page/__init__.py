"""The status page: one page at the admin port's ``/``, kept current by one stream of server-sent events.

``view`` (view.py) makes what the page shows of the status, and ``patch`` the difference of two views. LivePage
(live.py) looks every 2 s while somebody reads, and writes each difference to all readers. Minutes (minutes.py) counts
the batches of each minute, for the chart. PageRoutes (routes.py) serves the files below ``static``, which hold all that
the browser gets: no build step, nothing from elsewhere. What a reader asks for (ledger, messages) comes from the admin
API.
"""
