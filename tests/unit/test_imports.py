"""The imports of each process, which cost time at every start, and memory."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from orders.imports import defer, without

FOR_TERMINALS = {"rich", "pygments"}
FOR_TRACES = {"opentelemetry.sdk", "opentelemetry.exporter", "google.protobuf"}
FOR_MIGRATIONS = {"yoyo", "sqlparse", "jinja2"}
FOR_TOKENS = {"jwt", "cryptography.x509", "cryptography.hazmat"}
FOR_HTTP = {"falcon", "gunicorn", "meinheld", "limits"}
FOR_SENTINELS = {"orders.cache.discovery", "redis.client", "redis.cluster", "redis.asyncio"}
FOR_TOOLS = {"requests", "charset_normalizer"}
NOBODYS = FOR_TERMINALS | FOR_TRACES | FOR_MIGRATIONS | FOR_SENTINELS | FOR_TOOLS
ABSENT = {
    "api": NOBODYS | FOR_TOKENS | {"pika"},
    "relay": NOBODYS | FOR_TOKENS | FOR_HTTP | {"redis", "urllib3", "pybreaker"},
    "worker": NOBODYS | FOR_TOKENS | FOR_HTTP,
    "notifier": NOBODYS | FOR_TOKENS | FOR_HTTP | {"redis"},
}
# As the command line comes to the process, and what that imports when it runs.
CODE = """
import sys
from orders import cli
cli._parser(tools=False)
match "{0}":
    case "api":
        import orders.api.main, orders.api.wiring, orders.api.server.application
    case name:
        __import__(f"orders.{{name}}.main")
print(*sys.modules)
"""


@pytest.mark.parametrize("process", ABSENT)
def test_a_process_does_not_import_what_it_does_not_use(process: str) -> None:
    words = [sys.executable, "-c", CODE.format(process)]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ABSENT[process] & set(result.stdout.split()) == set()


def test_what_was_hidden_can_be_imported_afterwards() -> None:
    assert "this" not in sys.modules
    with without("this", "sys"), pytest.raises(ModuleNotFoundError):
        import this  # noqa: F401
    assert "this" not in sys.modules
    assert sys.modules["sys"] is sys


def test_a_deferred_package_is_complete_when_a_name_of_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "slowly"
    package.mkdir()
    (package / "__init__.py").write_text("from slowly import costly\nNAME = costly.NAME\n")
    (package / "costly.py").write_text("NAME = 'costly'\n")
    (package / "cheap.py").write_text("NAME = 'cheap'\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("slowly", "slowly.costly", "slowly.cheap"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    defer("slowly")
    cheap = importlib.import_module("slowly.cheap")
    assert cheap.NAME == "cheap"
    assert "slowly.costly" not in sys.modules

    package_itself = importlib.import_module("slowly")
    assert package_itself.NAME == "costly"
    assert package_itself.cheap is cheap
    with pytest.raises(AttributeError):
        package_itself.absent  # noqa: B018


@pytest.mark.parametrize("package", ["sys", "not_installed_anywhere"])
def test_nothing_is_deferred_of_what_is_imported_or_not_there(package: str) -> None:
    module_before = sys.modules.get(package)
    defer(package)
    assert sys.modules.get(package) is module_before
