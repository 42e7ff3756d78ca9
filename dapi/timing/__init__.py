"""Delays, loops, and those who wait, on a clock that is handed in.

- ``make_monotonic`` has a reactor wait by a clock that nobody sets; ``unix_seconds`` makes times that can be shown.
- ``Timer``: one delayed call that is started again and cancelled at will.
- ``LoopService``: a service that is one loop; ``Wake`` is what it waits at between its turns.
- ``retry`` tries until it succeeds; ``RetryDelay`` is the time between two attempts, 3 to 5 seconds.
- ``Waiters``: many Deferreds for one event. ``Observers``: functions that are called at each event.
- ``PoolThread`` runs what would take the reactor's thread too long.
- ``step`` lets a state machine make the steps that its table has, and no other.
- ``SayOnce``, ``OncePerMinute``: limits to how often the same is logged.
"""
