"""A log line about an unexpected failure has everything except customers' values."""

import json
import subprocess
import sys

import pytest

from integration.handles import Database
from integration.serving import SERVICES

CARD = "4111 1111 1111 1111"
# A row that breaks two rules of its table; the second failure is raised while the first is handled.
FAILING = """
import os, sys
import psycopg, structlog
from orders.settings import LogSettings
from orders.telemetry import logs
logs.configure(LogSettings(format=sys.argv[1]), "test")
log = structlog.get_logger()
with psycopg.connect(os.environ["DATABASE"], autocommit=True) as connection:
    connection.execute("CREATE TEMP TABLE t (a text UNIQUE, b int NOT NULL)")
    connection.execute("INSERT INTO t VALUES (%s, 1)", [sys.argv[2]])
    try:
        try:
            connection.execute("INSERT INTO t VALUES (%s, 2)", [sys.argv[2]])
        except psycopg.Error:
            connection.execute("INSERT INTO t VALUES (%s, NULL)", [sys.argv[2] + chr(10) * 2])
    except psycopg.Error:
        log.exception("request.failed")
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_says_what_failed_and_quotes_no_row(form: str, database: Database) -> None:
    output = subprocess.run(
        [sys.executable, "-c", FAILING, form, CARD],
        env={"PYTHONPATH": str(SERVICES), "DATABASE": database.url},
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert CARD not in output
    text = json.loads(output)["exception"] if form == "json" else output
    assert "UniqueViolation: duplicate key value violates unique constraint" in text
    assert "During handling of the above exception" in text
    assert 'NotNullViolation: null value in column "b"' in text
