"""Runs commands of ``dapi`` against answers of an admin API that were recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from dapi.cli.admin_client import AdminClient
from dapi.cli.main import cli
from dapi.cli.session import Session

ANSWERS = Path(__file__).parent / "answers"
# 20 s after the answers were recorded.
NOW = 1_795_715_472.9


def recorded(name: str) -> tuple[int, Any]:
    """A status and an answer, as a real dapi gave them."""
    told = json.loads((ANSWERS / f"{name}.json").read_text(encoding="utf-8"))
    return told["status"], told["answer"]


class RecordedClient(AdminClient):
    """Answers each call with what was set for it; ``calls`` are those that were made."""

    def __init__(self) -> None:
        super().__init__("http://dapi:9200", "secret-token")
        self.calls: list[tuple[str, str, Any]] = []
        self._answers: dict[tuple[str, str], list[tuple[int, bytes]]] = {}

    def set(self, method: str, path: str, *answers: Any, status: int = 200) -> None:
        """Give these answers to calls of a path, one after the other, the last one again and again."""
        self._answers[method, path] = [each if isinstance(each, tuple) else (status, each) for each in answers]

    def _exchange(self, method: str, target: str, body: object) -> tuple[int, bytes]:
        path = target.removeprefix("/admin/v1")
        self.calls.append((method, path, body))
        answers = self._answers[method, path.partition("?")[0]]
        status, answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return status, answer if isinstance(answer, bytes) else json.dumps(answer).encode()


class CliTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.client = RecordedClient()
        self.sleeps = 0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Sleep ``sleeps`` times, and be interrupted then."""
        self.slept.append(seconds)
        if len(self.slept) > self.sleeps:
            raise KeyboardInterrupt

    def run_dapi(self, *arguments: str, code: int = 0, typed: str | None = None) -> Result:
        """Run ``dapi``; see that it ends with this code and that every line has at most 80 characters."""
        session = Session(now=lambda: NOW, sleep=self.sleep)
        session._client = self.client
        result = CliRunner().invoke(cli, arguments, obj=session, input=typed, env={"COLUMNS": "80"}, prog_name="dapi")
        self.assertEqual(result.exit_code, code, f"{result.output}\n{result.exception!r}")
        if not {"--json", "export", "completion"} & set(arguments):
            self.assertEqual([line for line in result.stdout.splitlines() if len(line) > 80], [])
        self.assertNotIn("\x1b", result.output)
        self.assertNotIn("secret-token", result.output)
        return result

    def shown(self, *arguments: str, code: int = 0, typed: str | None = None) -> str:
        """What a command prints, its columns one space apart."""
        lines = self.run_dapi(*arguments, code=code, typed=typed).stdout.splitlines()
        return "\n".join(" ".join(line.split()) for line in lines)

    def told(self, *arguments: str, code: int = 0) -> Any:
        """What a command prints as JSON."""
        return json.loads(self.run_dapi(*arguments, "--json", code=code).stdout)

    def refused(self, *arguments: str, code: int = 1, typed: str | None = None) -> str:
        """What a command says on the error output when it fails."""
        result = self.run_dapi(*arguments, code=code, typed=typed)
        return result.stderr
