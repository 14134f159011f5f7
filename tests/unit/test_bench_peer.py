"""The service in Go that `make bench` compares with: it may be missing, which is reported."""

import re
import subprocess
import sys
from pathlib import Path

from loadtest.bench import peer
from loadtest.bench.run import Scope, _peer
from loadtest.bench.testbed import RunPlan, wanted

SCOPE = Scope(("post", "worker"), RunPlan(1, 4, 1), 1, None, go=False)


def test_a_run_without_the_service_in_go_says_so_and_goes_on() -> None:
    lines: list[str] = []
    assert _peer(SCOPE, lines.append) == (None, {"go": "--without-go"})
    assert lines == ["go is left out: --without-go"]
    assert _peer(SCOPE._replace(subjects=["worker"], go=True), lines.append) == (None, {})
    assert len(lines) == 1


def test_a_machine_without_go_says_why_there_is_no_peer(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from loadtest.bench import peer\n"
        "from loadtest.bench.run import Scope, _peer\n"
        "from loadtest.bench.testbed import RunPlan\n"
        "peer._USUAL = Path('/nowhere')\n"
        "print(_peer(Scope(('get',), RunPlan(1, 1, 1), 1, None), print), peer.version())\n"
    )
    folders = f"{peer.FOLDER.parents[2]}:{peer.FOLDER.parents[2] / 'services'}"
    environment = {"PATH": "/nowhere", "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": folders}
    process = subprocess.run(
        [sys.executable, "-c", script],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.stderr == ""
    assert "go is left out: Go is not installed" in process.stdout
    assert process.stdout.endswith("(None, {'go': 'Go is not installed'}) unknown\n")
    assert not list(tmp_path.rglob("go-peer")), "nothing is kept of a build that was none"


def test_the_service_in_go_is_started_only_where_it_takes_part() -> None:
    for go in (False, True):
        started = {name for wave in wanted(["post"], None, go=go) for name in wave}
        assert ("go" in started) == go
    assert "go-wide" not in started
    slow = {name for wave in wanted(["post-slow"], None, go=True) for name in wave}
    assert {"go", "go-wide"} <= slow
    assert "go" not in {name for wave in wanted(["relay"], None, go=False) for name in wave}


def test_every_module_of_the_service_in_go_is_pinned_by_its_hash() -> None:
    mod = (peer.FOLDER / "go.mod").read_text(encoding="utf-8")
    required = re.findall(r"^\t(\S+) (v\S+)", mod, re.MULTILINE)
    assert len(required) > 3
    pinned = (peer.FOLDER / "go.sum").read_text(encoding="utf-8")
    for module, version in required:
        assert re.search(rf"^{re.escape(module)} {re.escape(version)} h1:", pinned, re.MULTILINE), (
            f"{module} {version}"
        )
