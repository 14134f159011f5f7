"""The alerts drill, without a stack: what it covers and how faults are chosen."""

import re
from pathlib import Path

import pytest

from loadtest.drill import __main__ as drill
from loadtest.drill.faults import ELSEWHERE, FAULTS
from orderservice_observability.objectives import Scope
from orderservice_observability.rules import platform_rules, service_rules


def test_a_fault_or_a_reason_stands_for_every_alert() -> None:
    groups = [*service_rules(Scope("orders"), drill.STRICT), *platform_rules()]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    made_to_fire = {alert for fault in FAULTS for alert in fault.alerts}
    assert made_to_fire | set(ELSEWHERE) == alerts
    assert not made_to_fire & set(ELSEWHERE)


def test_the_page_has_a_row_for_every_alert_and_for_no_other() -> None:
    page = Path(__file__).parents[2] / "docs" / "observability.md"
    section = page.read_text().split("## Alerts drill")[1].split("\n## ")[0]
    [_, *rows] = re.findall(r"^\| (.*?) ?\| (\w+) \| (.+) \|$", section, re.MULTILINE)
    listed = [(title, alert) for title, alert, _ in rows]
    made_to_fire = [
        (fault.title if alert == fault.alerts[0] else "", alert)
        for fault in FAULTS
        for alert in fault.alerts
    ]
    assert listed[: len(made_to_fire)] == made_to_fire
    assert {alert: reason for _, alert, reason in rows[len(made_to_fire) :]} == ELSEWHERE


def test_every_fault_can_be_chosen_by_its_name() -> None:
    assert tuple(drill.named(fault.name) for fault in FAULTS) == FAULTS


def test_an_unknown_fault_is_refused_with_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        drill.main(["redis", "fire"])
    assert "no fault 'fire': one of none, dead-letter" in capsys.readouterr().err


@pytest.mark.parametrize(("fired_s", "code"), [({}, 1), ({"OrderReplicaLag": 11.0}, 0)])
def test_an_alert_that_did_not_fire_fails_the_drill(
    fired_s: dict[str, float], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert drill.summary([drill.FaultResult(drill.named("replica"), set(), fired_s)]) == code
    assert f"missed: {'none' if fired_s else 'OrderReplicaLag'}" in capsys.readouterr().out
