"""What ``ops/`` has for Prometheus, and a real scrape, judged by promtool."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import pytest_twisted
import treq
import yaml
from twisted.internet import reactor
from twisted.web.client import Agent

from tests import programs
from tests.batches import validated_fields
from tests.integration.service.conftest import start
from tests.integration.service.services import Start, call, config, node
from tests.integration.waiting import soon
from tests.ops_files import OPS, expressions_of_panels, text_of

__all__ = ["start"]


@programs.needs("promtool")
def test_the_rules_and_the_configuration_are_sound() -> None:
    programs.run("promtool", "check", "config", str(OPS / "prometheus.yml"))
    programs.run("promtool", "check", "rules", str(OPS / "alerts.yml"))


@programs.needs("promtool")
def test_the_alerts_fire_at_what_has_cost_hosts_money_and_at_nothing_else() -> None:
    programs.run("promtool", "test", "rules", str(OPS / "alerts.test.yml"))


@programs.needs("promtool")
def test_a_rule_that_is_wrong_is_found(tmp_path: Path) -> None:
    rules = text_of("alerts.yml")
    (tmp_path / "alerts.yml").write_text(rules.replace("dapi_node_silent_seconds > 60", "dapi_node_silent_seconds > 1"))
    (tmp_path / "alerts.test.yml").write_text(text_of("alerts.test.yml"))
    with pytest.raises(AssertionError, match="DapiNodeWithoutBatches"):
        programs.run("promtool", "test", "rules", str(tmp_path / "alerts.test.yml"))


@programs.needs("promtool")
def test_each_expression_of_the_dashboard_can_be_read(tmp_path: Path) -> None:
    rules = [
        # Grafana puts a time in the place of this.
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(expressions_of_panels())
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    programs.run("promtool", "check", "rules", str(path))


@programs.needs("promtool")
@pytest_twisted.ensureDeferred
async def test_a_real_scrape_has_no_fault(tmp_path: Path, start: Start) -> None:
    service = await start(config(tmp_path / "a.db", node("a")))
    callbacks, admin = service.callback_listener.port, service.admin_listener.port
    assert (await call(callbacks, "/v1/poc-batches/validated", validated_fields()))[0] == 200
    response = await soon(treq.get(f"http://127.0.0.1:{admin}/metrics", agent=Agent(reactor)))
    text = await soon(treq.content(response))
    # Not what prometheus_client names.
    lines = [
        line for line in text.splitlines(keepends=True) if not re.match(rb"(# (HELP|TYPE) )?(process|python)_", line)
    ]
    assert any(line.startswith(b"dapi_ack_seconds_bucket") for line in lines)
    assert programs.run("promtool", "check", "metrics", text=b"".join(lines)) == ""
