"""What is made of pip-audit's answer: no answer is no good answer."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tools.audit import judge

SOUND = {"name": "a", "version": "1", "vulns": []}
UNKNOWN = {"name": "b", "skip_reason": "Dependency not found on PyPI and could not be audited: b (2)"}
BAD = {"name": "c", "version": "3", "vulns": [{"id": "CVE-1", "fix_versions": ["4"]}]}


class JudgeTests(SynchronousTestCase):
    def test_nothing_is_known_against_them(self) -> None:
        self.assertEqual(judge([SOUND]), (0, ["1 of 1 were audited"]))

    def test_a_vulnerability(self) -> None:
        code, lines = judge([SOUND, UNKNOWN, BAD])
        self.assertEqual(code, 1)
        self.assertEqual(lines[0], "c 3: CVE-1, mended in ['4']")

    def test_what_the_index_does_not_tell_of(self) -> None:
        code, lines = judge([SOUND, UNKNOWN])
        self.assertEqual(code, 2)
        self.assertEqual(lines[-1], "not known, because the index does not tell of them: b")

    def test_no_answer_at_all(self) -> None:
        self.assertEqual(judge([])[0], 2)
