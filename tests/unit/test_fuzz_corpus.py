"""Each decoder takes, or refuses in its own words, what is in the corpus of tests/fuzz."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"


class CorpusTests(SynchronousTestCase):
    def test_each_input(self) -> None:
        for name, target in TARGETS.items():
            inputs = sorted((CORPUS / name).iterdir())
            self.assertGreaterEqual(len(inputs), 2, name)
            for path in inputs:
                try:
                    target(path.read_bytes())
                except Exception as error:
                    raise AssertionError(f"{path.relative_to(CORPUS)}: {type(error).__name__}: {error}") from error

    def test_there_is_no_corpus_without_a_target(self) -> None:
        self.assertEqual({path.name for path in CORPUS.iterdir()}, set(TARGETS))
