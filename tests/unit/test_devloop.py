"""The command of the development image, as far as it needs no image (see tests/images)."""

import sys
from pathlib import Path

from devloop import reloading


def test_the_copy_is_the_package_that_is_installed(tmp_path: Path) -> None:
    copy = tmp_path / "sources"
    reloading.put_copy(copy)
    installed = Path(reloading.__file__).parents[1] / "orders"
    expected = {path.relative_to(installed) for path in installed.rglob("*.py")}
    assert {path.relative_to(copy / "orders") for path in copy.rglob("*.py")} == expected
    assert not list(copy.rglob("__pycache__"))


def test_files_that_were_replaced_outlive_the_container(tmp_path: Path) -> None:
    copy = tmp_path / "sources"
    reloading.put_copy(copy)
    replaced = copy / "orders" / "cli.py"
    replaced.write_text("changed")
    reloading.put_copy(copy)
    assert replaced.read_text() == "changed"


def test_a_port_puts_the_debugger_in_front() -> None:
    own = ["-m", "orders", "worker"]
    assert reloading.command_of(["worker"], None) == [sys.executable, *own]
    debugger = ["-m", "debugpy", "--listen", "0.0.0.0:5678"]
    assert reloading.command_of(["worker"], "5678") == [sys.executable, *debugger, *own]
