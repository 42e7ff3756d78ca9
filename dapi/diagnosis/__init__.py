"""What is wrong right now, in words, with what to do about it.

A check is a pure function: the status of all parts in, findings out. ``findings`` (checks.py) runs them all; the files
beside it hold them by room. Each Finding has a ProblemId of the catalogue (catalogue.py), which says how grave it is
and where it belongs. The ProblemBook (book.py) remembers since when each finding is there, and makes a Problem
(problem.py) of each that has lasted long enough. Status, log and metrics all show that one list.
"""
