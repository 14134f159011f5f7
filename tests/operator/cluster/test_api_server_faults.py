"""Faults between the operator and the API server do not change the result."""

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from control_plane.plane import ControlPlane, free_ports
from kube.api import Api, Object
from kube.faults import (
    Chooser,
    DropReply,
    Fault,
    FaultProxy,
    Hang,
    Refuse,
    Request,
    each_once,
)
from kube.nodes import Nodes
from machine_time import machine_time_s

Example = Callable[..., Object]
Ready = Callable[[str], bool]
SERVICES = ("orders.platform.dev/v1alpha1", "orderservices")
SILENCE_S = 3.0
LEASE_S = 12.0  # after that another one may work
QUIET_S = 3.0  # without a write: it is done
CHILDREN = {
    "v1": ("serviceaccounts", "configmaps", "services"),
    "apps/v1": ("deployments",),
    "batch/v1": ("jobs",),
    "policy/v1": ("poddisruptionbudgets",),
    "networking.k8s.io/v1": ("networkpolicies",),
}
FAULTS: dict[str, Fault] = {
    "409": Refuse(409),
    "410": Refuse(410),
    "429": Refuse(429, retry_after_s=1),
    "500": Refuse(500),
    "dropped reply": DropReply(),
}


@pytest.fixture(scope="module")
def proxy(own_plane: ControlPlane) -> Iterator[FaultProxy]:
    """Start a proxy between the operator and the API server."""
    started = FaultProxy(own_plane)
    started.start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def operator_behind_proxy(
    proxy: FaultProxy,
    own_plane: ControlPlane,
    account_token: Callable[[], str],
    kubeconfig_for: Callable[[str, str, str], Path],
    start_operator: Callable[..., Any],
) -> Iterator[Any]:
    """Run an operator that knows the API server by the proxy's address."""
    file = kubeconfig_for(proxy.url, account_token(), "behind")
    operator = start_operator(
        "behind", KUBECONFIG=str(file), OPERATOR_WATCH_SILENCE_S=str(SILENCE_S)
    )
    yield operator
    operator.stop()


@pytest.fixture
def is_ready(api: Api, namespace: str) -> Ready:
    """Return whether a resource of the test's namespace is ready."""

    def ask(name: str = "minimal") -> bool:
        status = api.get(*SERVICES, namespace, name).get("status", {})
        return bool(status.get("phase") == "Ready")

    return ask


def _children(api: Api, namespace: str) -> list[tuple[str, str]]:
    owned = "orders.platform.dev/orderservice"
    return sorted(
        (plural, child["metadata"]["name"])
        for version, plurals in CHILDREN.items()
        for plural in plurals
        for child in api.list(version, plural, namespace, owned)
    )


def _operator_ready(api: Api, operator: Any) -> bool:
    return _readyz(api, operator) == "ok\n"


def _readyz(api: Api, operator: Any) -> str:
    """Return the text of its answer; empty when it does not answer."""
    root = f"http://127.0.0.1:{operator.admin_port}"
    try:
        return api.twin().session.get(f"{root}/readyz", timeout=30).text
    except OSError:
        return ""


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.usefixtures("operator_behind_proxy", "nodes")
def test_a_fault_of_every_write_changes_nothing_about_the_end(
    api: Api, proxy: FaultProxy, namespace: str, example: Example, is_ready: Ready, fault: Fault
) -> None:
    with proxy.with_fault(each_once(fault)):
        api.apply(example(), namespace)
        api.wait(lambda: is_ready("minimal"))
    assert len(_children(api, namespace)) == 22
    owners = {
        reference["name"]
        for deployment in api.list("apps/v1", "deployments", namespace)
        for reference in deployment["metadata"]["ownerReferences"]
    }
    assert owners == {"minimal"}


@pytest.fixture
def settled(
    api: Api,
    namespace: str,
    example: Example,
    nodes: Nodes,
    is_ready: Ready,
    operator_behind_proxy: Any,
) -> str:
    """Give a namespace with a resource that is ready, and an operator that follows it.

    The revision is recorded in the pass after the one that reports Ready: the last write there is.
    """
    assert nodes
    api.apply(example(), namespace)
    api.wait(lambda: is_ready("minimal"))
    api.wait(lambda: api.list("apps/v1", "controllerrevisions", namespace))
    api.wait(lambda: _operator_ready(api, operator_behind_proxy))
    return namespace


def _comes_back(api: Api, namespace: str) -> Callable[[], bool]:
    """Delete a child by hand; return whether another is in its place."""
    key = ("v1", "services", namespace, "minimal-api")
    uid = api.get(*key)["metadata"]["uid"]
    api.delete(*key)
    return lambda: api.exists(*key) and api.get(*key)["metadata"]["uid"] != uid


def test_a_watch_whose_place_is_gone_lists_anew(api: Api, proxy: FaultProxy, settled: str) -> None:
    refused_paths: set[str] = set()

    def refuse(request: Request) -> Fault | None:
        if not request.is_watch or request.path in refused_paths:
            return None
        refused_paths.add(request.path)
        return Refuse(410)

    with proxy.with_fault(refuse):
        proxy.cut_watches()
        api.wait(lambda: len(refused_paths) >= 10)
        api.wait(_comes_back(api, settled))


def test_a_watch_that_goes_silent_is_replaced(api: Api, proxy: FaultProxy, settled: str) -> None:
    """Lists still work: what the watches keep to themselves is found by listing."""
    with proxy.with_fault(lambda request: Hang() if request.is_watch else None):
        proxy.cut_watches()
        api.wait(_comes_back(api, settled))


def test_an_api_server_that_goes_silent_is_told_by_readyz_and_outlived(
    api: Api, proxy: FaultProxy, settled: str, operator_behind_proxy: Any
) -> None:
    pid = operator_behind_proxy.process.pid
    with proxy.with_fault(lambda _: Hang()):
        back = _comes_back(api, settled)
        api.wait(lambda: not _operator_ready(api, operator_behind_proxy))
    api.wait(back)
    api.wait(lambda: _operator_ready(api, operator_behind_proxy))
    assert operator_behind_proxy.process.poll() is None
    assert operator_behind_proxy.process.pid == pid


def test_a_deletion_that_no_watch_tells_leaves_no_ghost(
    api: Api, proxy: FaultProxy, settled: str
) -> None:
    """Children of a resource that is missing from a new listing are not recreated."""
    writes: list[str] = []

    def record(request: Request) -> Fault | None:
        if request.is_write and request.query.get("fieldManager") == "orderservice-operator":
            writes.append(request.path)
        return None

    def refuse(request: Request) -> Fault | None:
        watched = request.is_watch and request.path.endswith("/orderservices")
        return Refuse(410) if watched else record(request)

    with proxy.with_fault(refuse):
        proxy.cut_watches()
        time.sleep(1)
        api.delete(*SERVICES, settled, "minimal")
        time.sleep(1)  # kopf lists
    with proxy.with_fault(record):
        api.wait(lambda: not _children(api, settled))
        time.sleep(QUIET_S)
    assert writes == []


@pytest.fixture
def leader(
    proxy: FaultProxy,
    own_plane: ControlPlane,
    account_token: Callable[[], str],
    kubeconfig_for: Callable[[str, str, str], Path],
    start_operator: Callable[..., Any],
) -> Callable[..., Any]:
    """Start an operator behind the proxy that asks for a Lease."""
    assert own_plane
    file = kubeconfig_for(proxy.url, account_token(), "leader")
    return lambda **environ: start_operator(
        "leader",
        KUBECONFIG=str(file),
        **{"OPERATOR_LEASE": "orders-system/behind", **environ},
    )


def _lease(api: Api) -> Object:
    key = ("coordination.k8s.io/v1", "leases", "orders-system", "behind")
    spec: Object = api.get(*key)["spec"] if api.exists(*key) else {}
    return spec


def test_a_leader_renews_its_lease_while_it_still_lists_and_outlives_a_fault_at_its_take_over(
    api: Api, proxy: FaultProxy, leader: Callable[..., Any]
) -> None:
    leading, refusal = threading.Event(), threading.Event()

    def slow(request: Request) -> Fault | None:
        if request.path.endswith("/configmaps") and not request.is_watch:
            return Hang()
        if "leases" in request.path and request.is_write:
            leading.set()
        if "apiservices" in request.path and leading.is_set():
            refusal.set()
            return Refuse(500)
        return None

    with proxy.with_fault(slow):
        operator = leader()
        api.wait(lambda: _lease(api))
        first = _lease(api)["renewTime"]
        api.wait(lambda: _lease(api)["renewTime"] > first, within_s=12)
        assert refusal.is_set()
        assert operator.process.poll() is None
    api.wait(lambda: _operator_ready(api, operator))
    operator.stop()


def test_a_leader_that_is_cut_off_stops_before_another_may_begin(
    api: Api, proxy: FaultProxy, leader: Callable[..., Any], figure: Callable[[str, float], None]
) -> None:
    operator = leader()
    api.wait(lambda: _lease(api).get("holderIdentity", "").endswith(f"-{operator.process.pid}"))
    api.wait(lambda: _operator_ready(api, operator))
    with proxy.with_fault(lambda _: Hang()):
        cut_at_s, count_before = machine_time_s(), operator.log.read_text().count("work.ended")
        api.wait(lambda: operator.log.read_text().count("work.ended") > count_before)
        took_s = machine_time_s() - cut_at_s
        assert operator.process.wait(60) == 1  # up to 5 s later, which kopf gives its own tasks
    figure("cut_off_leader_ended_after_s", took_s)
    assert took_s < LEASE_S


def test_it_is_not_ready_before_it_has_read_the_cluster(
    api: Api, proxy: FaultProxy, leader: Callable[..., Any]
) -> None:
    with proxy.with_fault(lambda request: Hang() if "apiservices" in request.path else None):
        operator = leader(OPERATOR_LEASE="")
        api.wait(lambda: "starting" in _readyz(api, operator))


def test_a_silence_without_end_is_told_by_livez(
    api: Api, proxy: FaultProxy, leader: Callable[..., Any]
) -> None:
    operator = leader(OPERATOR_LEASE="", OPERATOR_WATCH_SILENCE_S="1")
    api.wait(lambda: _operator_ready(api, operator))
    url = f"http://127.0.0.1:{operator.admin_port}/livez"

    def probe() -> tuple[int, str]:
        """Probe as a kubelet does: over its own connection."""
        with requests.get(url, timeout=30) as answer:
            return answer.status_code, answer.text

    assert probe() == (200, "ok\n")
    with proxy.with_fault(lambda _: Hang()):
        api.wait(lambda: probe()[0] == 503)
        assert ": silent for" in probe()[1]
    operator.stop()


def test_a_watch_of_resources_refused_outright_ends_the_process_and_the_next_one_goes_on(
    api: Api,
    proxy: FaultProxy,
    namespace: str,
    example: Example,
    nodes: Nodes,
    is_ready: Ready,
    account_token: Callable[[], str],
    kubeconfig_for: Callable[[str, str, str], Path],
    start_operator: Callable[..., Any],
    figure: Callable[[str, float], None],
) -> None:
    """No part of the process may live on without it: it would never hear of a resource again."""
    assert nodes
    file = kubeconfig_for(proxy.url, account_token(), "refused")
    operator = start_operator("refused", KUBECONFIG=str(file), OPERATOR_NAMESPACE=namespace)
    api.wait(lambda: _operator_ready(api, operator))
    watched = api.path(*SERVICES, namespace)
    began_at = time.monotonic()

    def refuse(request: Request) -> Fault | None:
        is_refused = request.is_watch and request.path == watched
        return Refuse(410, at_once=True) if is_refused else None

    with proxy.with_fault(refuse):
        proxy.cut_watches()
        assert operator.process.wait(180) == 1
    figure("ended_by_a_refused_watch_after_s", time.monotonic() - began_at)
    operator.start()
    api.apply(example(), namespace)
    api.wait(lambda: is_ready("minimal"))
    operator.stop()


@pytest.mark.usefixtures("nodes")
def test_a_token_that_ends_is_read_anew(
    api: Api,
    proxy: FaultProxy,
    namespace: str,
    example: Example,
    is_ready: Ready,
    account_token: Callable[[], str],
    kubeconfig_for: Callable[[str, str, str], Path],
    start_operator: Callable[..., Any],
) -> None:
    old, new = account_token(), account_token()
    file = kubeconfig_for(proxy.url, old, "renewed")
    operator = start_operator("renewed", KUBECONFIG=str(file), OPERATOR_NAMESPACE=namespace)
    api.wait(lambda: _operator_ready(api, operator))
    kubeconfig_for(proxy.url, new, "renewed")
    with proxy.with_fault(lambda request: Refuse(401) if request.token == old else None):
        proxy.cut_watches()
        api.apply(example(), namespace)
        api.wait(lambda: _alive(operator) and is_ready("minimal"))
    operator.stop()


def _alive(operator: Any) -> bool:
    """Start it again if it has ended, as the kubelet would: kopf may give up on a refused token."""
    if operator.process.poll() is not None:
        operator.start()
    return True


ZYGOTE = """
import os, signal, sys
from orderservice_operator.control.main import main

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in sys.stdin:
    if (child := os.fork()) == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os._exit(main())
    print(child, flush=True)
"""


class Lives:
    """An operator that is killed again and again; each life is a separate process.

    They are forked from a process that has the modules loaded: most of a start is that.
    """

    def __init__(self, python: Path, log: Path, **environ: str) -> None:
        (self.admin_port,) = free_ports(1)
        environ |= {
            "OPERATOR_ADMIN_HOST": "127.0.0.1",
            "OPERATOR_ADMIN_PORT": str(self.admin_port),
        }
        self._zygote = subprocess.Popen(
            [str(python), "-c", ZYGOTE],
            env={**os.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("wb"),
            text=True,
        )
        self.pid, self.count = 0, 0

    def begin(self) -> None:
        """Fork a new operator process."""
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self._zygote.stdin.write("\n")
        self._zygote.stdin.flush()
        line = self._zygote.stdout.readline()
        while not line.strip().isdigit():  # a log line of an earlier life
            line = self._zygote.stdout.readline()
        self.pid, self.count = int(line), self.count + 1

    def kill(self) -> None:
        """End it as a crash would."""
        if self.alive:
            os.kill(self.pid, signal.SIGKILL)

    @property
    def alive(self) -> bool:
        """Whether the operator process exists."""
        return Path(f"/proc/{self.pid}").exists()

    def end(self) -> None:
        """Kill the operator and the process that forks it."""
        self.kill()
        self._zygote.kill()
        self._zygote.wait()


@pytest.fixture
def lives(
    image_python: Path,
    proxy: FaultProxy,
    own_plane: ControlPlane,
    namespace: str,
    account_token: Callable[[], str],
    kubeconfig_for: Callable[[str, str, str], Path],
) -> Iterator[Lives]:
    """Yield an operator that is killed and started again."""
    file = kubeconfig_for(proxy.url, account_token(), "lives")
    log = own_plane.folder / "lives.log"
    lives = Lives(
        image_python,
        log,
        KUBECONFIG=str(file),
        OPERATOR_NAMESPACE=namespace,
        OPERATOR_LOG_LEVEL="error",
    )
    yield lives
    lives.end()


@pytest.mark.parametrize("writes", [pytest.param(1, marks=pytest.mark.exhaustive), 5])
def test_killed_after_so_many_writes_again_and_again_it_comes_to_the_same_end(
    api: Api,
    proxy: FaultProxy,
    namespace: str,
    example: Example,
    nodes: Nodes,
    is_ready: Ready,
    lives: Lives,
    figure: Callable[[str, float], None],
    writes: int,
) -> None:
    """Each life never hears of the success of its last write, and is killed with SIGKILL."""
    assert nodes
    api.apply(example(), namespace)
    with proxy.with_fault(_so_many_writes(lives, writes)):
        while _lives_until_killed(api, lives, is_ready):
            assert lives.count < 100
    figure(f"lives_of_{writes}_writes", lives.count)
    assert lives.count > 23 // writes  # 22 children and a status, then a life that lives on
    names = _children(api, namespace)
    assert (len(names), len(set(names))) == (22, 22)
    managers = {
        field["manager"]
        for deployment in api.list("apps/v1", "deployments", namespace)
        for field in deployment["metadata"]["managedFields"]
    }
    assert managers == {"orderservice-operator", "kube-controller-manager"}


def _so_many_writes(lives: Lives, writes: int) -> Chooser:
    """Forward some writes of each life, then kill the operator; no other write is forwarded."""
    wrote: Counter[int] = Counter()

    def choose(request: Request) -> Fault | None:
        if not request.is_write:
            return None
        wrote[lives.pid] += 1
        if wrote[lives.pid] > writes:
            return Refuse(500)
        return DropReply(then=lives.kill) if wrote[lives.pid] == writes else None

    return choose


def _lives_until_killed(api: Api, lives: Lives, is_ready: Ready) -> bool:
    """Run once; return False if it was not killed because it had nothing more to write."""
    lives.begin()
    began_at = time.monotonic()
    root = f"http://127.0.0.1:{lives.admin_port}"
    with api.twin().session as session:
        done_at = 0.0
        while lives.alive:
            if done_at == 0 and _has_looked(session, root) and is_ready("minimal"):
                done_at = time.monotonic()
            if done_at and time.monotonic() - done_at > QUIET_S:
                lives.kill()
                return False
            assert time.monotonic() - began_at < 180
            time.sleep(0.05)
    return True


def _has_looked(session: Any, root: str) -> bool:
    try:
        text: str = session.get(f"{root}/metrics", timeout=30).text
    except OSError:
        return False
    return 'orderservice_reconcile_total{result="done"}' in text
