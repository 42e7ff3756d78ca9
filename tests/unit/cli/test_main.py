"""The command line as a whole: what it imports, its help, its errors and exit codes, completion."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from dapi.cli.admin_client import AdminClient
from dapi.cli.errors import CliError
from dapi.cli.exit_codes import ExitCode
from dapi.cli.main import cli
from dapi.cli.session import LocalCommand, Session
from tests.unit.cli.cli_case import CliTestCase, recorded
from tools.make_reference import commands

HEAVY = ("twisted", "rich", "http.client", "msgspec", "yaml", "sqlite3", "google.protobuf", "asyncio")


def examples(command: LocalCommand) -> list[str]:
    """The examples of a command, each as one line."""
    return [" ".join(line.split()) for line in command.examples.strip().replace("\\\n", " ").splitlines()]


class ImportTests(CliTestCase):
    def imported(self, code: str) -> set[str]:
        script = f"import sys\n{code}\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        return set(done.stdout.splitlines()[-1].split())

    def test_the_command_line_imports_nothing_heavy(self) -> None:
        self.assertEqual(self.imported("import dapi.cli.main"), set())

    def test_help_imports_nothing_heavy(self) -> None:
        for arguments in (["--help"], ["status", "--help"], ["node", "add", "--help"]):
            code = f"from dapi.cli.main import cli\ncli.main({arguments!r}, standalone_mode=False)"
            self.assertEqual(self.imported(code), set(), arguments)

    def test_the_options_of_twistd_import_no_settings(self) -> None:
        script = (
            "import sys, dapi.tap; print([name for name in ('dapi.config', 'yaml', 'OpenSSL') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout, "[]\n")

    def test_json_needs_no_tables(self) -> None:
        code = (
            "from dapi.cli.main import cli\nfrom dapi.cli.session import Session\n"
            "from tests.unit.cli.cli_case import RecordedClient\n"
            "session = Session(); session._client = RecordedClient(); session._client.set('GET', '/status', {})\n"
            "[sys.modules.pop(name) for name in list(sys.modules) if name.startswith(('twisted', 'rich'))]\n"
            "cli.main(['status', '--json'], standalone_mode=False, obj=session)"
        )
        self.assertNotIn("rich", self.imported(code))


class HelpTests(CliTestCase):
    def test_every_command_has_help_with_an_example_in_80_columns(self) -> None:
        for name, command in commands():
            self.assertIsInstance(command, LocalCommand, name)
            assert isinstance(command, LocalCommand)
            text = self.run_dapi(*name.split()[1:], "--help").stdout
            self.assertTrue(command.help, name)
            lines = examples(command)
            self.assertTrue(lines and all(line.startswith(name) for line in lines), name)
            shown = " ".join(text.replace("\\\n", " ").split())
            self.assertEqual([line for line in lines if line not in shown], [], name)

    def test_each_command_that_prints_something_knows_json(self) -> None:
        for name, command in commands():
            options = {option for parameter in command.params for option in parameter.opts}
            self.assertEqual("--json" in options, name != "dapi completion", name)

    def test_examples_are_command_lines_that_are_understood(self) -> None:
        for name, command in commands():
            assert isinstance(command, LocalCommand)
            for line in examples(command):
                words = line.split("|")[0].split("&&")[0].split(">")[0].split()[len(name.split()) :]
                arguments = " ".join(words).replace("$(date +%F)", "today")
                context = command.make_context(name, shlex.split(arguments), obj=Session())
                self.assertFalse(context.resilient_parsing, line)

    def test_version(self) -> None:
        from dapi import __version__

        self.assertEqual(self.run_dapi("--version").stdout, f"dapi, version {__version__}\n")

    def test_what_is_no_command(self) -> None:
        for arguments in (
            ("statsu",),
            ("status", "--nonsense"),
            ("batches", "--state", "lost"),
            ("node", "add", "x", "y"),
        ):
            self.run_dapi(*arguments, code=ExitCode.USAGE)


class ClientTests(CliTestCase):
    def test_what_answers_is_no_dapi(self) -> None:
        self.client.set("GET", "/status", b"<html>\x1b[31mnginx</html>", status=502)
        error = self.refused("status", code=ExitCode.UNREACHABLE)
        self.assertIn("what answers there is no dapi (502): <html>?[31mnginx", error)

    def test_nothing_answers(self) -> None:
        with self.assertRaises(CliError) as caught:
            AdminClient("http://127.0.0.1:1").get("/status")
        self.assertEqual(caught.exception.exit_code, ExitCode.UNREACHABLE)
        self.assertIn("Connection refused", caught.exception.message)

    def test_dapi_wants_a_token(self) -> None:
        for status in (401, 403):
            self.client.set("GET", "/status", {"error": "no"}, status=status)
            self.assertIn("no; give dapi's token: --token-file", self.refused("status"))

    def test_dapi_says_no(self) -> None:
        self.client.set("GET", "/epochs", {"error": "no chain is followed"}, status=404)
        self.assertEqual(self.refused("epochs"), "dapi: no chain is followed\n")
        told = json.loads(self.refused("epochs", "--json"))
        self.assertEqual(told, {"error": "no chain is followed", "exit_code": 1})
        self.client.set("GET", "/epochs", [], status=500)
        self.refused("epochs")


_WITHOUT: dict[str, str | None] = {"DAPI_URL": None, "DAPI_ADMIN_TOKEN": None, "DAPI_CA_FILE": None}


class SessionTests(CliTestCase):
    def session_of(self, *arguments: str, **environ: str) -> Session:
        """The session that a command sees."""
        seen: list[Session] = []

        class Watched(Session):
            @property
            def api(self) -> Any:
                seen.append(self)
                return super().api

        CliRunner().invoke(cli, arguments, obj=Watched(), env=_WITHOUT | environ)
        return seen[0]

    def client_of(self, *arguments: str, **environ: str) -> tuple[str, str | None]:
        client = self.session_of(*arguments, "--url", "http://127.0.0.1:1", **environ).api
        return client._url, client._token

    def test_the_option_wins_over_the_variable(self) -> None:
        self.assertEqual(self.client_of("status", DAPI_URL="http://127.0.0.1:2")[0], "http://127.0.0.1:1")
        session = self.session_of("status", DAPI_URL="http://127.0.0.1:2")
        self.assertIsNone(session.url)

    def test_a_url_that_is_none(self) -> None:
        for url in ("127.0.0.1:9200", "ftp://x", "http://", "http://user@host", "http://x?y"):
            self.assertIn("is no URL", CliRunner().invoke(cli, ["status", "--url", url]).stderr)
            self.assertEqual(CliRunner().invoke(cli, ["status"], env={"DAPI_URL": url}).exit_code, ExitCode.USAGE)

    def test_token(self) -> None:
        path = Path(self.mktemp())
        path.write_text("from-a-file\n", encoding="utf-8")
        self.assertEqual(self.client_of("status")[1], None)
        self.assertEqual(self.client_of("status", DAPI_ADMIN_TOKEN="from-outside")[1], "from-outside")
        arguments = ("status", "--token-file", str(path))
        self.assertEqual(self.client_of(*arguments, DAPI_ADMIN_TOKEN="from-outside")[1], "from-a-file")

    def test_ca_file(self) -> None:
        self.assertEqual(self.session_of("status", DAPI_CA_FILE="/from-outside.pem").api._ca_file, "/from-outside.pem")
        arguments = ("status", "--ca-file", "/option.pem")
        self.assertEqual(self.session_of(*arguments, DAPI_CA_FILE="/from-outside.pem").api._ca_file, "/option.pem")
        self.assertIsNone(self.session_of("status").api._ca_file)

    def test_a_ca_file_that_cannot_be_used(self) -> None:
        path = Path(self.mktemp())
        for content, message in ((None, "No such file"), (b"text", "no certificate in PEM form")):
            if content is not None:
                path.write_bytes(content)
            arguments = ["status", "--url", "https://127.0.0.1:1", "--ca-file", str(path)]
            result = CliRunner().invoke(cli, arguments)
            self.assertEqual(result.exit_code, ExitCode.USAGE)
            self.assertIn(message, result.stderr)

    def test_a_token_file_that_cannot_be_used(self) -> None:
        path = Path(self.mktemp())
        for content, message in (
            (None, "No such file"),
            (b"", "one line"),
            (b"a\nb", "one line"),
            (b"\xff", "no text"),
        ):
            if content is not None:
                path.write_bytes(content)
            result = CliRunner().invoke(cli, ["status", "--token-file", str(path)])
            self.assertEqual(result.exit_code, ExitCode.REFUSED)
            self.assertIn(message, result.stderr)


class BackupTests(CliTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.sleeps = 5
        self.begun, self.done = recorded("backup-begun")[1], recorded("backup-done")[1]
        self.client.set("POST", "/backup", self.begun, status=202)

    def test_waits_until_it_is_done(self) -> None:
        self.client.set("GET", "/backup", self.begun, self.begun, self.done)
        self.assertEqual(self.shown("backup", "copy.db"), "the database is copied into /var/lib/dapi/copy.db, 368 KiB")
        self.assertEqual(self.client.calls[0], ("POST", "/backup", {"path": str(Path("copy.db").absolute())}))
        self.assertEqual(self.told("backup", "copy.db"), self.done)

    def test_failed(self) -> None:
        self.client.set("GET", "/backup", {**self.begun, "state": "failed", "problem": "the disk is full"})
        self.assertIn("copy.db is not made: the disk is full", self.refused("backup", "copy.db"))

    def test_dapi_was_restarted_meanwhile(self) -> None:
        self.client.set("GET", "/backup", {**self.begun, "state": "none", "path": None, "began_at": None})
        self.assertIn("may not be whole", self.refused("backup", "copy.db"))


class LogTests(CliTestCase):
    def test_show_and_change(self) -> None:
        self.client.set("GET", "/log", {"level": "info", "configured": "info"})
        self.assertEqual(self.shown("logs"), "the log has info")
        answer = {"level": "info,websocket=debug", "configured": "info"}
        self.client.set("PUT", "/log", answer)
        shown = self.shown("logs", "--level", "info,websocket=debug")
        self.assertEqual(shown, "the log has info,websocket=debug; the next start begins with info")
        self.assertEqual(self.client.calls[-1], ("PUT", "/log", {"level": "info,websocket=debug"}))
        self.assertEqual(self.told("logs", "--level", "info,websocket=debug"), answer)


class CompletionTests(CliTestCase):
    def test_a_script_for_each_shell(self) -> None:
        for shell in ("bash", "zsh", "fish"):
            script = self.run_dapi("completion", shell).stdout
            self.assertIn("_DAPI_COMPLETE", script)
            self.assertIn(f"{shell}_complete", script)
        self.run_dapi("completion", "tcsh", code=ExitCode.USAGE)

    def completed(self, *words: str) -> list[str]:
        from click.shell_completion import BashComplete

        *arguments, incomplete = words
        found = BashComplete(cli, {}, "dapi", "_DAPI_COMPLETE").get_completions(arguments, incomplete)
        return [each.value for each in found]

    def test_commands_options_and_nodes(self) -> None:
        self.assertEqual(self.completed("restart"), ["restart-advice"])
        self.assertEqual(self.completed("node", "en"), ["enable"])
        self.assertIn("in_flight", self.completed("batches", "--state", ""))
        self.client.set("GET", "/nodes", recorded("nodes")[1])
        client = self.client
        self.patch(Session, "api", property(lambda session: client))
        self.assertEqual(self.completed("node", "enable", "nod"), ["node1", "node2", "node3"])
        self.assertEqual(self.completed("node", "enable", "x"), [])

    def test_no_dapi_answers(self) -> None:
        self.client.set("GET", "/nodes", b"", status=502)
        client = self.client
        self.patch(Session, "api", property(lambda session: client))
        self.assertEqual(self.completed("node", "enable", "nod"), [])
