"""An HTTP request and its answer, on both sides; nothing here knows what a request means.

On the server's side, a ``HttpListener`` (listener.py) listens on a port for a ``JsonSite`` (site.py), which bounds what
clients can take: each connection is a ``JsonChannel``, each request a ``JsonRequest``. The routes are Klein's
(``new_app`` in answers.py). They answer in JSON, and ``status_of`` chooses the HTTP status of an error from its class,
there and nowhere else. ``BrowserGuard`` refuses what a page of another site makes a browser send.

On the client's side, ``Exchanges`` (exchange.py) makes one request over a connection of its own. It returns the whole
answer, which is bounded too, or an ``Answer`` whose body is read in pieces: the other side is held back while nobody
reads. The clients of the ML nodes and of the chain stand on it.
"""
