"""Failpoints exist, act once when they are armed, and cost production nothing."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import CodeType, FunctionType

import pytest

import orders
from torture.plan import KINDS
from torture.points import ACTED, BEFORE, DAWDLE, EVERYWHERE, EXIT, POINTS, SLEEP
from torture.rig import HOOK, TESTS
from torture.wrapping import Armed, holder, wrapped

SERVICES = Path(orders.__file__).parents[1]


@pytest.mark.parametrize("name", POINTS)
def test_every_named_point_exists_and_is_where_its_processes_pass(name: str) -> None:
    point = POINTS[name]
    owner, method = holder(importlib.import_module(point.target.partition(":")[0]), point)
    assert isinstance(getattr(owner, method), FunctionType)
    assert set(point.kinds) <= set(KINDS)


def words(code: CodeType) -> set[str]:
    """Return all names and texts of a compiled function, and of those inside it."""
    names = {*code.co_names, *code.co_varnames, *code.co_freevars}
    names |= {text for text in code.co_consts if isinstance(text, str)}
    return names.union(*(words(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def test_the_compiled_service_has_no_trace_of_a_failpoint() -> None:
    for file in sorted((SERVICES / "orders").rglob("*.py")):
        text = words(compile(file.read_text(), str(file), "exec"))
        assert not [word for word in text if "failpoint" in word.lower()], file


def probe(script: str, **environment: str) -> str:
    path = f"{HOOK}:{TESTS}:{SERVICES}"
    inherited = {name: value for name, value in os.environ.items() if name[:7] != "ORDERS_"}
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60,
        env={**inherited, "PYTHONPATH": path, **environment},
    )  # fmt: skip
    return process.stdout.strip()


LOOK = """
import sys
from orders.database.progress import Progress
print(hasattr(Progress.load, "__wrapped__"), "torture.wrapping" in sys.modules)
"""


def test_a_process_has_them_only_where_the_variable_is_set(tmp_path: Path) -> None:
    assert probe(LOOK) == "False False"
    assert probe(LOOK, ORDERS_FAILPOINTS=str(tmp_path)) == "True True"


def arm(folder: Path, action: str, nth: int) -> None:
    (folder / "here").write_text(json.dumps({"action": action, "nth": nth, "sleep_s": 0.01}))


def test_a_process_ends_at_the_nth_pass_and_only_one_does(tmp_path: Path) -> None:
    script = f"""
from torture.wrapping import Armed, wrapped
walk = wrapped(lambda: print("passed", flush=True), "here", "{BEFORE}", Armed("{tmp_path}"))
for _ in range(5): walk()
"""
    arm(tmp_path, EXIT, 3)
    path = f"{TESTS}:{SERVICES}"
    run = [sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONPATH": path}
    first = subprocess.run(run, capture_output=True, check=False, timeout=60, env=environment)
    assert (first.returncode, first.stdout.count(b"passed")) == (86, 2)
    second_run = subprocess.run(run, capture_output=True, check=False, timeout=60, env=environment)
    assert (second_run.returncode, second_run.stdout.count(b"passed")) == (0, 5)
    assert [file.name for file in tmp_path.iterdir()] == [f"here{ACTED}"]


def test_a_point_that_sleeps_does_so_until_it_is_disarmed(tmp_path: Path) -> None:
    walk = wrapped(lambda: "done", "here", BEFORE, Armed(str(tmp_path)))
    assert walk() == "done"
    arm(tmp_path, SLEEP, 1)
    assert walk() == "done"
    assert (tmp_path / "here").exists()


def test_a_process_that_dawdles_waits_at_some_of_its_passes(tmp_path: Path) -> None:
    walk = wrapped(lambda: None, "here", BEFORE, Armed(str(tmp_path)))
    order = {"action": DAWDLE, "share": 0.5, "sleep_s": 0.02}
    (tmp_path / EVERYWHERE).write_text(json.dumps(order))
    took_s = []
    for _ in range(40):
        began_s = time.perf_counter()
        walk()
        took_s.append(time.perf_counter() - began_s)
    assert max(took_s) > 0.005
    assert min(took_s) < 0.005
