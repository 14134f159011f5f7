"""The runbook's commands run, and the panels that it names are on the dashboards."""

import json
import re
import shlex
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Final

import psycopg
import pytest
import requests

from loadtest.drill.stack import Stack, eventually
from orderservice_observability.dashboards import texts

ROOT: Final = Path(__file__).parents[2]
RUNBOOK: Final = (ROOT / "observability" / "runbook.md").read_text()
PROSE: Final = " ".join(RUNBOOK.split())  # panels' names and commands in sentences are wrapped
SQL: Final = re.findall(r"SELECT [^`;]+", PROSE)
_COMMAND: Final = r"(?:in_worker|orders) ((?:dead-letters|topology)[^`\n]+)"
ORDERS: Final = [
    *re.findall(rf"^    {_COMMAND}$", RUNBOOK, re.MULTILINE),
    *re.findall(rf"`{_COMMAND}`", PROSE),
]
PYTHON: Final = re.findall(r"python -c (\".+\")", RUNBOOK)
# What lines of logs are searched for: events of ours.
EVENTS: Final = re.findall(r"(?<=[`' ])((?:order|work|watch)\.[a-z_]+)(?=[`' ])", PROSE)
EMPHASIS: Final = re.compile(r"(?<!\*)\*([^*]+)\*(?!\*)")


def publish(stack: Stack, exchange: str, key: str, message_id: str) -> None:
    """Publish an unreadable message."""
    port = stack.ports["rabbitmq_management"]
    requests.post(
        f"http://127.0.0.1:{port}/api/exchanges/%2F/{exchange}/publish",
        auth=("orders", stack.secret("rabbitmq")),
        json={"properties": {"message_id": message_id}, "routing_key": key, "payload": "?",
              "payload_encoding": "string"},
        timeout=10,
    ).raise_for_status()  # fmt: skip


@pytest.mark.parametrize("statement", SQL)
def test_every_statement_is_one_that_the_database_carries_out(stack: Stack, statement: str) -> None:
    url = stack.process_environment()["ORDERS_DATABASE_URL"]
    with psycopg.connect(url) as connection:
        connection.execute(statement.replace("<pid>", "0").encode())


@pytest.mark.parametrize("command", ORDERS)
def test_every_command_of_ours_does_what_it_says(stack: Stack, command: str) -> None:
    message_id = uuid.uuid4().hex
    count_before = stack.metric("worker", "messaging_dead_letter_total")
    if "unrouted" in command:
        publish(stack, "orders", "order.unheard_of.v1", message_id)
    elif "dead-letters" in command:
        publish(stack, "amq.default", "order-processing", message_id)
        eventually(lambda: stack.metric("worker", "messaging_dead_letter_total") > count_before)
    for placeholder in ("<message id>", "01890a5d"):  # in prose, and where people paste
        command = command.replace(placeholder, message_id)
    arguments = shlex.split(command, comments=True)
    process = stack.orders(*arguments)
    assert process.returncode == 0, process.stdout + process.stderr
    if "list" in arguments or "show" in arguments:
        assert message_id in process.stdout


@pytest.mark.parametrize("script", PYTHON)
def test_every_question_to_an_admin_port_is_answered(stack: Stack, script: str) -> None:
    [code] = shlex.split(script)
    for process, port in (("api", "8081"), ("worker", "8083")):
        code = code.replace(f":{port}/", f":{stack.ports[f'{process}_admin']}/")
    completed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert "postgres" in completed.stdout


def panels() -> list[tuple[str, str]]:
    """Pair each board with each panel that is named after it in the same section."""
    named, board = [], ""
    for section in PROSE.split("### ")[1:]:
        for words in EMPHASIS.findall(section):
            if words.startswith("Orders / "):
                board = words
            named.append((board, "" if words == board else words))
    return named


def test_every_board_and_panel_that_is_named_exists() -> None:
    boards = [json.loads(text) for text in texts().values()]
    titles = {(board["title"], panel["title"]) for board in boards for panel in board["panels"]}
    titles |= {(board["title"], "") for board in boards}
    assert len(panels()) > 30
    assert [panel for panel in panels() if panel not in titles] == []


@pytest.mark.parametrize("event", sorted(set(EVENTS)))
def test_every_line_to_search_for_is_one_that_is_written(event: str) -> None:
    sources = [*(ROOT / "services").rglob("*.py"), *(ROOT / "operator").rglob("*.py")]
    assert any(f'"{event}"' in path.read_text() for path in sources)


def test_the_runbook_has_commands_to_try() -> None:
    assert len(SQL) >= 5
    assert len(ORDERS) >= 6
    assert len(PYTHON) == 2
    assert len(set(EVENTS)) >= 3
