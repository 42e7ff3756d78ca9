"""What ``ops/`` has for Prometheus and Grafana speaks of metrics that there are, and says what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import msgspec
import yaml
from twisted.trial.unittest import SynchronousTestCase

from dapi.config import Config
from dapi.config.loading import VARIABLES
from dapi.server.metric_families import families
from dapi.tap import Options
from tests.metric_samples import whole_snapshot
from tests.ops_files import OPS, alert_rules, expressions_of_panels, panels, text_of

ROOT = Path(__file__).parents[2]
# Of the process, by prometheus_client.
OTHERS = {
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
}


def names_of_samples() -> set[str]:
    """Every name that a scrape can have, and the labels of each are not looked at."""
    return {sample.name for family in families(whole_snapshot()) for sample in family.samples}


class NameTests(SynchronousTestCase):
    def assert_known(self, expression: str) -> None:
        without_texts = re.sub(r'"[^"]*"', "", expression)
        told = set(re.findall(r"\b(?:dapi|process)_\w+", without_texts))
        self.assertTrue(told or "up{" in without_texts, expression)
        self.assertEqual(told - names_of_samples() - OTHERS, set(), expression)

    def test_of_the_rules(self) -> None:
        for rule in alert_rules():
            self.assert_known(rule["expr"])

    def test_of_the_dashboard(self) -> None:
        expressions = list(expressions_of_panels())
        self.assertGreater(len(expressions), 20)
        for expression in expressions:
            self.assert_known(expression)


class AlertTests(SynchronousTestCase):
    def test_each_says_what_and_where_to_read_on(self) -> None:
        names = [rule["alert"] for rule in alert_rules()]
        self.assertEqual(len(names), len(set(names)))
        for rule in alert_rules():
            self.assertIn(rule["labels"]["severity"], ("critical", "warning"))
            told = rule["annotations"]
            self.assertEqual(set(told), {"summary", "description", "chapter"}, rule["alert"])
            self.assertRegex(told["chapter"], r"^docs/\w+\.md#([a-z0-9-]+|\{\{ \$labels\.id \}\})\Z")

    def test_each_chapter_is_there(self) -> None:
        chapters = [rule["annotations"]["chapter"].split("#") for rule in alert_rules()]
        texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
        self.assertIn(ROOT / "docs" / "alerts.md", texts)
        for file, heading in chapters:
            if ROOT / file in texts and "$labels" not in heading:
                self.assertRegex(texts[ROOT / file], rf"(?m)^##+ {heading}$")

    def test_each_is_tried_in_a_case(self) -> None:
        cases = text_of("alerts.test.yml")
        self.assertEqual([rule["alert"] for rule in alert_rules() if f'"{rule["alert"]}"' not in cases], [])


class ServiceTests(SynchronousTestCase):
    """The unit for systemd."""

    def setUp(self) -> None:
        # A list of system calls may stand in several lines.
        parser = ConfigParser(interpolation=None, strict=False)
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read_string(text_of("dapi.service"))
        self.service = parser["Service"]

    def test_it_waits_for_what_dapi_says_and_starts_it_again(self) -> None:
        told = {name: self.service[name] for name in ("Type", "NotifyAccess", "Restart")}
        self.assertEqual(told, {"Type": "notify", "NotifyAccess": "main", "Restart": "always"})
        self.assertGreaterEqual(int(self.service["WatchdogSec"]), 30)
        # After a power cut the database reads a long log before dapi is ready.
        self.assertGreater(int(self.service["TimeoutStartSec"]), int(self.service["WatchdogSec"]))

    def test_the_options_of_its_command_are_dapis(self) -> None:
        twistd, _, command = self.service["ExecStart"].partition(" dapi ")
        # In the foreground, as Type=notify needs it, with the log for the journal.
        self.assertEqual(twistd.split()[1:], ["-n", "-l", "-"])
        known = {f"--{name}" for name, *_ in Options.optParameters}
        self.assertLessEqual({word for word in command.split() if word.startswith("--")}, known)


class ContainerTests(SynchronousTestCase):
    """The image, and the files for ``docker compose``."""

    def services(self) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        for path in sorted(OPS.glob("compose*.yaml")):
            whole = yaml.safe_load(path.read_text(encoding="utf-8"))
            yield path.name, whole["services"]["dapi"], whole

    def test_variables_are_those_that_dapi_reads(self) -> None:
        # The last two are for the command line in the container.
        known = {*VARIABLES, "NODE_CONFIG_PATH", "DAPI_ADMIN_TOKEN", "DAPI_URL"}
        settings = {
            f"DAPI_{section.name}__{field.name}".upper()
            for section in msgspec.structs.fields(Config)
            if section.name != "nodes"
            for field in msgspec.structs.fields(section.type)
        }
        told = {name for _, service, _ in self.services() for name in service["environment"]}
        told |= set(re.findall(r"\b(DAPI_\w+)=", text_of("Containerfile")))
        self.assertGreater(len(told), 15)
        self.assertEqual(told - known - settings, set())

    def test_the_database_is_on_a_volume_that_is_declared(self) -> None:
        folder = re.findall(r"^VOLUME (\S+)$", text_of("Containerfile"), re.MULTILINE)[0]
        self.assertIn(f"DAPI_STORAGE__PATH={folder}/outbox.db", text_of("Containerfile"))
        for name, service, whole in self.services():
            if "image" in service:
                mounted = dict(volume.split(":")[:2] for volume in service["volumes"])
                self.assertEqual(mounted["dapi-data"], folder, name)
                self.assertIn("dapi-data", whole["volumes"], name)

    def test_nothing_runs_as_root_or_may_become_it(self) -> None:
        self.assertRegex(text_of("Containerfile"), r"(?m)^USER 65532:65532$")
        for name, service, _ in self.services():
            if "image" in service:
                self.assertTrue(service["read_only"], name)
                self.assertEqual(service["cap_drop"], ["ALL"], name)
                self.assertEqual(service["security_opt"], ["no-new-privileges:true"], name)
                self.assertEqual(service["tmpfs"], ["/tmp"], name)

    def test_its_end_is_a_stop_that_waits_for_the_disk(self) -> None:
        self.assertIn("\nSTOPSIGNAL SIGTERM\n", text_of("Containerfile"))
        for name, service, _ in self.services():
            if "image" in service:
                self.assertEqual(service["stop_grace_period"], "90s", name)
                self.assertEqual(service["restart"], "always", name)


class DashboardTests(SynchronousTestCase):
    def test_panels_do_not_overlap_and_have_titles(self) -> None:
        taken: set[tuple[int, int]] = set()
        self.assertEqual(len({panel["id"] for panel in panels()}), len(panels()))
        for panel in panels():
            self.assertTrue(panel["title"])
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24)
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            self.assertFalse(cells & taken, panel["title"])
            taken |= cells

    def test_every_panel_explains_itself(self) -> None:
        unexplained = [each["title"] for each in panels() if each["type"] != "row" and not each["description"]]
        self.assertEqual(unexplained, [])

    def test_no_address_of_anybody_is_in_it(self) -> None:
        text = text_of("dashboard.json")
        self.assertNotRegex(text, r"https?://")
