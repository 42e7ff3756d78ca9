"""What docs/ says is so: settings, variables, options, routes, commands, lines of the log, the example."""

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

from dapi.broker.nodes import NodeConfig
from dapi.config import Config, Secret, load_config
from dapi.config.loading import FORMER_NAMES
from dapi.config.loading import VARIABLES as NETWORK_VARIABLES
from dapi.diagnosis.catalogue import ProblemId
from dapi.diagnosis.problem import Problem
from dapi.messages import State
from dapi.server.admin import AdminApi
from dapi.server.operations import ADMIN, CALLBACKS
from dapi.service import make_service
from dapi.tap import Options
from tests.fake_broker import FakePhaseStatus
from tests.unit.server import test_admin
from tests.unit.test_ops import names_of_samples
from tools.http_reference import reference
from tools.make_reference import DOCS, commands, parts, with_part

reactor: Any = global_reactor
ROOT = Path(__file__).parents[2]
# What `make docs` has made of the code needs no look.
FILES = [path for path in sorted(DOCS.glob("*.md")) if not path.name.endswith("-reference.md")]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in FILES}
EVERYTHING = "\n".join([*PAGES.values(), (ROOT / "README.md").read_text(encoding="utf-8")])

# What the network's variables are set to here: anything but the default.
VARIABLES = {
    "KEY_NAME": "warm",
    "KEYRING_BACKEND": "test",
    "KEYRING_PASSWORD": "secret",
    "ACCOUNT_PUBKEY": "A" + "g" * 43,
    "IS_TEST_NET": "true",
}

# Other words with hyphens that stand alone between marks of code.
NO_PROBLEMS = {"keyring-file", "keyring-test", "minimum-gas-prices", "nvidia-smi", "systemd-analyze"}


def rows(text: str, heading: str) -> Iterator[tuple[str, ...]]:
    """The rows of all tables whose first heading starts like this, without the two rows of their heads."""
    _, *rest = text.split(f"\n| {heading}")
    assert rest, heading
    for table in rest:
        for line in table.partition("\n\n")[0].splitlines()[2:]:
            yield tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])


def section(text: str, heading: str) -> str:
    """What stands below a heading of the second level."""
    _, found, rest = text.partition(f"\n## {heading}\n")
    assert found, heading
    return rest.partition("\n## ")[0]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def default_of(text: str) -> Any:
    """What a default is in Python."""
    if text.startswith("`"):
        return text.strip("`")
    if text in ("true", "false"):
        return text == "true"
    number, _, unit = text.partition(" ")
    return int(number) * {"": 1, "MiB": 2**20, "GiB": 2**30}[unit] if number.isdecimal() else None


def leaves(config: Config) -> dict[str, Any]:
    """All settings but the nodes, by their names."""
    sections = {name: section for name, section in msgspec.structs.asdict(config).items() if name != "nodes"}
    return {
        f"{name}.{key}": value
        for name, section in sections.items()
        for key, value in msgspec.structs.asdict(section).items()
    }


class ReferenceTests(SynchronousTestCase):
    def test_what_comes_from_the_code_is_as_the_code_is(self) -> None:
        for file, name, lines in parts():
            self.assertEqual(PAGES[file], with_part(PAGES[file], name, lines), "run `make reference`")

    def test_a_document_without_a_place_for_the_part_is_refused(self) -> None:
        for text in ("", "<!-- begin a -->", "<!-- begin a -->\n<!-- end a -->\n" * 2):
            self.assertRaises(ValueError, with_part, text, "a", iter(["x"]))


class SettingTests(SynchronousTestCase):
    def test_every_setting_is_told_with_its_default_and_a_meaning(self) -> None:
        told = {}
        for names, default, meaning, allowed in rows(PAGES["settings.md"], "setting"):
            told[quoted(names)[0]] = default_of(default)
            self.assertTrue(meaning, f"{names}: write a text below it in dapi/config/settings.py")
            self.assertTrue(allowed, names)
        self.assertEqual(told, leaves(Config()))

    def test_every_field_of_a_node_is_told(self) -> None:
        told = [name for names, *_ in rows(PAGES["settings.md"], "field") for name in quoted(names)]
        self.assertEqual(told, list(NodeConfig.__struct_fields__))

    def test_variables_set_what_their_row_says(self) -> None:
        told = {}
        for names, *_ in rows(PAGES["settings.md"], "setting"):
            key, *others = quoted(names)
            told.update({name: key for name in others if name.isupper()})
        self.assertEqual(set(told), set(VARIABLES))
        self.assertEqual({*NETWORK_VARIABLES, "IS_TEST_NET"}, set(VARIABLES))
        defaults = leaves(Config())
        for name, key in told.items():
            found = leaves(load_config(environ={name: VARIABLES[name]})[0])
            self.assertEqual([each for each in found if found[each] != defaults[each]], [key], name)
            value = found[key]
            self.assertIn(value.reveal() if isinstance(value, Secret) else value, {VARIABLES[name], "test"}, name)

    def test_the_sample_file_is_understood(self) -> None:
        (sample,) = re.findall(r"```yaml\n(.*?)```", PAGES["settings.md"], re.DOTALL)
        path = self.mktemp()
        Path(path).write_text(sample, encoding="utf-8")
        config, warnings = load_config(path)
        self.assertEqual(warnings, [])
        self.assertTrue(config.nodes)
        self.assertIsNotNone(config.chain_node.url)

    def test_the_variables_of_the_start_are_understood(self) -> None:
        exports = re.findall(r"^export (\w+=.*)$", PAGES["start.md"], re.MULTILINE)
        environ = dict(re.findall(r"(\w+)=(\S+)", " ".join(exports)))
        self.assertIn("DAPI_CHAIN_NODE__URL", environ)
        del environ["PATH"]
        path = self.mktemp()
        Path(path).write_text("[]", encoding="utf-8")
        environ |= {"NODE_CONFIG_PATH": path, "ACCOUNT_PUBKEY": VARIABLES["ACCOUNT_PUBKEY"]}
        config, warnings = load_config(environ=environ)
        self.assertEqual(warnings, [])
        defaults, found = leaves(Config()), leaves(config)
        # But for the path, each sets something.
        self.assertEqual(len([name for name in found if found[name] != defaults[name]]), len(environ) - 1)

    def test_every_variable_anywhere_is_understood(self) -> None:
        names = set(re.findall(r"\bDAPI_[A-Z_0-9]+__[A-Z_0-9]+", EVERYTHING)) - {"DAPI_SECTION__NAME"}
        self.assertIn("DAPI_API__ML_SERVER_PORT", names)
        told = {name.removeprefix("DAPI_").lower().replace("__", ".") for name in names}
        self.assertEqual(told - set(leaves(Config())), set())

    def test_every_setting_anywhere_exists(self) -> None:
        sections = "|".join(name for name in Config.__struct_fields__ if name != "nodes")
        told = set(re.findall(rf"`({sections})\.([a-z_0-9]+)(?:: [^`]*)?`", EVERYTHING))
        self.assertGreater(len(told), 30)
        known = {*leaves(Config()), *FORMER_NAMES}
        self.assertEqual({".".join(each) for each in told} - known, set())

    def test_options_exist(self) -> None:
        known = {f"--{name}" for name, *_ in (*Options.optParameters, *Options.optFlags)} | {"--help", "--version"}
        known |= {option for _, command in commands() for parameter in command.params for option in parameter.opts}
        for page in ("settings.md", "start.md", "operating.md", "embedding.md", "promises.md", "http-api.md"):
            # Other programs have options of their own.
            text = re.sub(r"(?m)^(?:useradd|install|docker|systemctl|\S*pip) .*$", "", PAGES[page])
            told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
            self.assertEqual(told - known, set(), page)
        self.assertIn("--config", PAGES["settings.md"])


class RouteTests(test_admin.AdminTestCase):
    def api(self, **options: Any) -> AdminApi:
        return super().api(phases=FakePhaseStatus(), **options)

    def test_the_table_has_all_routes(self) -> None:
        told = {
            (method, path)
            for names, *_ in rows(PAGES["http-api.md"], "route")
            for method, path in map(str.split, quoted(names))
        }
        # Behind the guard is Klein's resource, which has the app.
        resource: Any = make_service(Config(), MemoryReactorClock()).admin_listener.site.resource
        rules = resource._guarded._app.url_map.iter_rules()
        real = {
            (method, re.sub(r"<[\w:]+>", "<id>", rule.rule.removeprefix("/admin/v1/")))
            for rule in rules
            for method in rule.methods - {"HEAD"}
        }
        self.assertEqual(told, real)

    def test_the_reference_has_each_route_and_each_type_that_it_links_to(self) -> None:
        made = reference()
        headings = re.findall(r"^### (.+)$", made, re.MULTILINE)
        self.assertEqual(len(headings), len(set(headings)))
        for method, path in (*ADMIN, *CALLBACKS):
            heading = f"{method} " + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path)
            self.assertTrue({heading, f"{heading} (admin port)"} & set(headings), heading)
        linked = set(re.findall(r"\]\(#([a-z]+)\)", made))
        self.assertGreater(len(linked), 30)
        self.assertEqual(linked - {heading.lower() for heading in headings}, set())

    def test_each_curl_is_answered(self) -> None:
        urls = [
            urlsplit(url)
            for url in re.findall(r"^curl '?(http://127\.0\.0\.1:9200[^'\s]+)", PAGES["http-api.md"], re.MULTILINE)
        ]
        self.assertTrue(urls)
        for url in urls:
            path = url.path.removeprefix("/admin/v1") + (f"?{url.query}" if url.query else "")
            self.assertEqual(self.got("GET", path)[0], 200, path)

    def test_the_body_of_a_manual_command(self) -> None:
        (body,) = re.findall(r"`(\{\"block_height\".*?\})`", PAGES["http-api.md"])
        self.assertEqual(re.findall(r'"(\w+)":', body), list(test_admin.BLOCK))


class LogTests(SynchronousTestCase):
    def test_the_lines_to_look_for_are_written(self) -> None:
        told = [text for text in quoted(section(PAGES["operating.md"], "Log")) if re.fullmatch(r"[a-z]+( \w+)+", text)]
        self.assertIn("everything waits", told)
        source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "dapi").rglob("*.py"))
        self.assertEqual([text for text in told if text not in source], [])

    def test_the_problems_have_the_fields_that_are_told(self) -> None:
        told = set(quoted(section(PAGES["operating.md"], "What is wrong")))
        told -= {"GET status", "problems", "dapi status"}
        self.assertEqual(told, set(Problem.__struct_fields__))

    def test_every_state_is_explained(self) -> None:
        told = set(re.findall(r"\*(\w+)\*", section(PAGES["operating.md"], "States")))
        self.assertEqual(told, {state.value for state in State})


class PromiseTests(SynchronousTestCase):
    def test_each_has_tests_that_exist(self) -> None:
        page = PAGES["promises.md"]
        guarded = {cells[0]: cells[1] for cells in rows(page, "promise")}
        for promise in re.findall(r"^- (.+)$", section(page, "What dapi promises"), re.MULTILINE):
            ours = [text for text in guarded if promise.startswith(text)]
            self.assertEqual(len(ours), 1, f"name a test of this promise at the end of docs/promises.md: {promise}")
            for each in quoted(guarded.pop(ours[0])):
                file, _, function = each.partition("::")
                self.assertIn(f"def {function}(", (ROOT / file).read_text(encoding="utf-8"), each)
        self.assertEqual(guarded, {})


class NameTests(SynchronousTestCase):
    """What any document names, wherever it does."""

    def test_commands(self) -> None:
        known = {name for name, _ in commands()} | {"dapi poc", "dapi node", "dapi --help"}
        told = set(re.findall(r"(?:^|`|&& )(dapi [a-z-]+(?: [a-z]+)?)", EVERYTHING, re.MULTILINE))
        self.assertGreater(len(told), 20)
        wrong = {text for text in told if not known & {text, text.rpartition(" ")[0]}}
        # What begins a sentence after a line break is no command.
        self.assertEqual({text for text in wrong if re.search(rf"`{re.escape(text)}", EVERYTHING)}, set())

    def test_make_targets(self) -> None:
        targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
        told = set(re.findall(r"`make ([a-z0-9-]+)", EVERYTHING))
        self.assertIn("demo-v2", told)
        self.assertEqual(told - targets, set())

    def test_routes(self) -> None:
        known = {(method, re.sub(r"<[\w:]+>", "<id>", path)) for method, path in (*ADMIN, *CALLBACKS)}
        known |= {("GET", path) for path in ("/openapi.json", "/login")} | {("POST", "/login")}
        told = re.findall(r"`(GET|POST|PUT|DELETE) (/?[\w/<>.…-]+?)(?:\?[^`]*)?`", EVERYTHING)
        self.assertGreater(len(told), 40)
        for method, path in told:
            # Some leave out what all begin with.
            paths = {path, f"/{path}", f"/admin/v1/{path.lstrip('/')}"}
            is_known = any((method, each) in known for each in paths)
            self.assertTrue(is_known or "…" in path, f"{method} {path}")

    def test_metrics(self) -> None:
        told = set(re.findall(r"`(dapi_[a-z0-9_]+)", EVERYTHING))
        self.assertIn("dapi_problems", told)
        self.assertEqual(told - names_of_samples(), set())

    def test_problems(self) -> None:
        told = set(re.findall(r"`([a-z]+(?:-[a-z0-9]+)+)`", EVERYTHING))
        self.assertIn("chain-moved-to-v2", told)
        self.assertEqual(told - {each.value for each in ProblemId} - NO_PROBLEMS, set())


class EmbeddingTests(SynchronousTestCase):
    def test_the_example_gives_a_parent_with_dapi_in_it(self) -> None:
        (example,) = re.findall(r"```python\n(.*?)```", PAGES["embedding.md"], re.DOTALL)
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
