"""What README.md and CONTRIBUTING.md say is so: settings, routes, options, commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from twisted.application.service import IService, MultiService
from twisted.internet import reactor as global_reactor
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from dapi.config import Config, Secret, load_config
from dapi.diagnosis.problem import Problem
from dapi.messages import State
from dapi.server.admin import AdminApi
from dapi.service import make_service
from dapi.tap import Options
from tests.fake_broker import FakePhaseStatus
from tests.unit.cli.test_main import commands
from tests.unit.server import test_admin

reactor: Any = global_reactor
ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

# What the network's variables are set to here: anything but the default.
VARIABLES = {
    "KEY_NAME": "warm",
    "KEYRING_BACKEND": "test",
    "KEYRING_PASSWORD": "secret",
    "ACCOUNT_PUBKEY": "A" + "g" * 43,
    "IS_TEST_NET": "true",
}
FILE_VARIABLES = {"API_CONFIG_PATH", "NODE_CONFIG_PATH"}


def rows(heading: str) -> Iterator[tuple[str, ...]]:
    """The rows of the table whose first heading starts like this, without the two rows of its head."""
    _, found, rest = README.partition(f"\n| {heading}")
    assert found, heading
    for line in rest.partition("\n\n")[0].splitlines()[2:]:
        yield tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def default_of(text: str) -> Any:
    """What a default is in Python; one in words, such as *the system's*, is None."""
    if text.startswith("`"):
        return text.strip("`")
    if text in ("true", "false"):
        return text == "true"
    number, _, unit = text.partition(" ")
    return int(number) * {"": 1, "MiB": 2**20, "GiB": 2**30}[unit] if number.isdecimal() else None


def leaves(config: Config) -> dict[str, Any]:
    """All settings but the nodes, by their names in the table."""
    sections = {name: section for name, section in msgspec.structs.asdict(config).items() if name != "nodes"}
    return {
        f"{name}.{key}": value
        for name, section in sections.items()
        for key, value in msgspec.structs.asdict(section).items()
    }


class SettingTests(SynchronousTestCase):
    def test_every_setting_is_in_the_table_with_its_default(self) -> None:
        told: dict[str, Any] = {}
        for names, default, _ in rows("setting"):
            keys = [name for name in quoted(names) if "." in name and name == name.lower()]
            defaults = default.split(", ") if len(keys) > 1 else [default]
            told.update(zip(keys, map(default_of, defaults), strict=bool(keys)))
        self.assertEqual(told, leaves(Config()))

    def test_variables_set_what_their_row_says(self) -> None:
        told = {}
        for names, *_ in rows("setting"):
            key, *others = quoted(names)
            told.update({name: key for name in others if name.isupper() and name not in FILE_VARIABLES})
        self.assertEqual(set(told), set(VARIABLES))
        defaults = leaves(Config())
        for name, key in told.items():
            found = leaves(load_config(environ={name: VARIABLES[name]})[0])
            self.assertEqual([each for each in found if found[each] != defaults[each]], [key], name)
            value = found[key]
            self.assertIn(value.reveal() if isinstance(value, Secret) else value, {VARIABLES[name], "test"}, name)

    def test_the_sample_file_is_understood(self) -> None:
        (sample,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
        path = self.mktemp()
        Path(path).write_text(sample, encoding="utf-8")
        config, warnings = load_config(path)
        self.assertEqual(warnings, [])
        self.assertTrue(config.nodes)
        self.assertIsNotNone(config.chain_node.url)

    def test_the_variables_of_the_example_are_understood(self) -> None:
        (example,) = re.findall(r"```\n(NODE_CONFIG_PATH=.*?)```", README, re.DOTALL)
        environ = dict(re.findall(r"(\w+)=(\S+)", example))
        self.assertIn("DAPI_CHAIN_NODE__URL", environ)
        path = self.mktemp()
        Path(path).write_text("[]", encoding="utf-8")
        environ |= {"NODE_CONFIG_PATH": path, "ACCOUNT_PUBKEY": VARIABLES["ACCOUNT_PUBKEY"]}
        config, warnings = load_config(environ=environ)
        self.assertEqual(warnings, [])
        defaults = leaves(Config())
        found = leaves(config)
        # But for the path, each sets something.
        self.assertEqual(len([name for name in found if found[name] != defaults[name]]), len(environ) - 1)

    def test_the_variables_in_the_text_are_understood(self) -> None:
        names = set(re.findall(r"\bDAPI_[A-Z_]+", README)) - {"DAPI_SECTION__NAME"}
        self.assertIn("DAPI_API__ADMIN_SERVER_HOST", names)
        told = {name.removeprefix("DAPI_").lower().replace("__", ".") for name in names}
        self.assertEqual(told - set(leaves(Config())), set())

    def test_options_exist(self) -> None:
        known = {f"--{name}" for name, *_ in (*Options.optParameters, *Options.optFlags)} | {"--help"}
        known |= {option for _, command in commands() for parameter in command.params for option in parameter.opts}
        told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
        self.assertEqual(told - known, set())
        self.assertIn("--config", told)


class RouteTests(test_admin.AdminTestCase):
    def api(self, **options: Any) -> AdminApi:
        return super().api(phases=FakePhaseStatus(), **options)

    def test_the_table_has_all_routes(self) -> None:
        told = {(method, path) for names, *_ in rows("route") for method, path in map(str.split, quoted(names))}
        # Behind the guard is Klein's resource, which has the app.
        resource: Any = make_service(Config(), MemoryReactorClock()).admin_listener.site.resource
        rules = resource._guarded._app.url_map.iter_rules()
        real = {
            (method, re.sub(r"<[\w:]+>", "<id>", rule.rule.removeprefix("/admin/v1/")))
            for rule in rules
            for method in rule.methods - {"HEAD"}
        }
        self.assertEqual(told, real)

    def test_each_curl_is_answered(self) -> None:
        urls = [urlsplit(url) for url in re.findall(r"^curl '?(http://127\.0\.0\.1:9200[^'\s]+)", README, re.MULTILINE)]
        self.assertTrue(urls)
        for url in urls:
            path = url.path.removeprefix("/admin/v1") + (f"?{url.query}" if url.query else "")
            self.assertEqual(self.got("GET", path)[0], 200, path)

    def test_the_body_of_a_manual_command(self) -> None:
        (body,) = re.findall(r"`(\{\"block_height\".*?\})`", README)
        self.assertEqual(re.findall(r'"(\w+)":', body), list(test_admin.BLOCK))


class LogTests(SynchronousTestCase):
    def test_the_lines_to_look_for_are_written(self) -> None:
        _, _, rest = README.partition("- **Log.** ")
        told = [text for text in quoted(rest.partition("\n- **")[0]) if re.fullmatch(r"[a-z]+( \w+)+", text)]
        self.assertIn("everything waits", told)
        source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "dapi").rglob("*.py"))
        self.assertEqual([text for text in told if text not in source], [])

    def test_the_problems_have_the_fields_that_are_told(self) -> None:
        _, _, rest = README.partition("- **Problems.** ")
        told = set(quoted(rest.partition("\n- **")[0])) - {"GET status", "problems"}
        self.assertEqual(told, set(Problem.__struct_fields__))

    def test_every_state_is_explained(self) -> None:
        _, _, rest = README.partition("- **States.** ")
        told = set(re.findall(r"\*(\w+)\*", rest.partition("\n- **")[0]))
        self.assertEqual(told, {state.value for state in State})


class EmbeddingTests(SynchronousTestCase):
    def test_the_example_gives_a_parent_with_dapi_in_it(self) -> None:
        (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
        path = self.mktemp()
        Path(path).write_text("", encoding="utf-8")
        names: dict[str, Any] = {}
        self.patch(reactor, "seconds", reactor.seconds)
        exec(example.replace('"config.yaml"', repr(path)), names)
        parent = names["parent"]
        self.assertIsInstance(parent, MultiService)
        (service,) = parent
        self.assertTrue(IService.providedBy(service))
        self.assertFalse(service.running)


class CommandTests(SynchronousTestCase):
    def test_commands_of_dapi_exist(self) -> None:
        told = re.findall(r"^(dapi [a-z-].*?) +#", README, re.MULTILINE)
        self.assertIn("dapi status", told)
        names = tuple(f"{name} " for name, _ in commands())
        self.assertEqual([line for line in told if not f"{line} ".startswith(names)], [])

    def test_make_targets_exist(self) -> None:
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
        for text in (README, CONTRIBUTING):
            told = set(re.findall(r"(?:^|`| {4})make ([a-z]+)", text, re.MULTILINE))
            self.assertEqual(told - targets, set())
            self.assertIn("test", told)

    def test_files_exist(self) -> None:
        told = set(re.findall(r"(?<![\w./])(?:tests|dapi|tools|bench|docs)/[\w./-]*\w", README + CONTRIBUTING))
        self.assertIn("tests/unit/test_layers.py", told)
        self.assertEqual([name for name in told if not (ROOT / name).exists()], [])
