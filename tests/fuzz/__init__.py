"""Whatever comes from outside, thrown at each decoder: ``targets`` says what may come of it.

``python -m tests.fuzz`` (``make fuzz``) makes new input with atheris, coverage-guided, from what is in ``corpus``. What
it has found once stays there, and ``tests/unit/test_fuzz_corpus.py`` tries all of it again, without atheris.
"""
