"""The CronJob of reconciliation: made with a schedule only, and only as much as it needs."""

import re
from typing import Any

import msgspec
import pytest

from orders import settings
from orders.settings import DatabaseSettings, ReconcileSettings, UpstreamSettings
from orderservice_operator.children.context import Context
from orderservice_operator.resource.operations import Reconciliation

NAME = "minimal-reconcile"
EVERY = {"schedule": "*/5 * * * *"}


def test_without_a_schedule_nothing_is_made(children: Any) -> None:
    manifests = children()
    assert ("CronJob", NAME) not in manifests
    assert ("NetworkPolicy", NAME) not in manifests


def test_runs_never_overlap_and_a_failed_one_is_not_repeated(children: Any) -> None:
    spec = children(reconciliation=EVERY)["CronJob", NAME]["spec"]
    assert spec["schedule"] == "*/5 * * * *"
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] == 1800
    assert spec["suspend"] is False


def test_it_waits_for_the_schema(children: Any) -> None:
    manifests = children(context=Context(migrated=False), reconciliation=EVERY)
    assert manifests["CronJob", NAME]["spec"]["suspend"] is True


def test_a_run_has_what_the_command_reads_and_nothing_it_does_not(children: Any) -> None:
    cron_job = children("full", reconciliation=EVERY)["CronJob", "full-reconcile"]
    pod = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    [run] = pod["containers"]
    assert run["command"] == ["orders", "reconcile", "--json"]
    names = {entry["name"] for entry in run["env"] if entry["name"].startswith("ORDERS_")}
    variables = {
        settings.variable(group, field)
        for group in (DatabaseSettings, UpstreamSettings, ReconcileSettings, settings.LogSettings)
        for field in group.__struct_fields__
    }
    assert names <= variables
    assert {"ORDERS_DATABASE_URL", "ORDERS_INVENTORY_URL", "ORDERS_PAYMENT_URL"} <= names


def test_it_may_connect_to_the_database_and_both_upstreams(children: Any) -> None:
    manifests = children("full", reconciliation=EVERY)
    policy = manifests["NetworkPolicy", "full-reconcile"]["spec"]
    worker = manifests["NetworkPolicy", "full-worker"]["spec"]
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert ports < {port["port"] for rule in worker["egress"] for port in rule["ports"]}
    assert policy["policyTypes"] == ["Egress"]


@pytest.mark.parametrize("schedule", ["*/5 * * * *", "0 3 * * SUN", "1,31 8-18 * * 1-5"])
def test_a_schedule_is_five_fields(schedule: str) -> None:
    assert msgspec.convert({"schedule": schedule}, Reconciliation).schedule == schedule


@pytest.mark.parametrize(
    "schedule", ["", "* * * *", "every minute", "*/5 * * * * *", "TZ=x * * * *"]
)
def test_anything_else_is_refused(schedule: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=re.escape("schedule")):
        msgspec.convert({"schedule": schedule}, Reconciliation)
