"""Run the stack in this process until a signal or a request asks for its end."""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from devstack import control, guardian, stack, state, tls
from devstack.component import Component
from devstack.packages import debian, rabbitmq, secured
from devstack.packages.release import Release
from devstack.report import ProgressReport
from devstack.settings import Settings
from devstack.supervisor import VERBS, PortsTaken, Supervisor

FAILURES = (state.StateError, PortsTaken, debian.FetchFailed, FileNotFoundError, PermissionError)
FAILED = 2


def up(settings: Settings) -> int:
    """Run the whole platform; return 0 when it was asked to stop."""
    output = ProgressReport()
    return guardian.guarded(
        lambda: run(
            settings.state,
            lambda: composed(settings, output),
            output,
            lambda took_s: ready_text(settings, took_s),
            lambda: stack.environment(settings, state.load_secrets(settings.state)),
        )
    )


def run(
    folder: Path,
    compose: Callable[[], list[Component]],
    output: ProgressReport,
    ready: Callable[[float], str],
    environment: Callable[[], Mapping[str, str]] = dict,
) -> int:
    """Start components over a state folder, wait, and stop them; return 1 or 2 if that failed.

    `compose` is called once this process has locked the folder; `environment` for each
    request for it.
    """
    try:
        with state.locked(folder):
            supervisor = Supervisor(compose(), output)
            # Ctrl-C, SIGTERM and a closed terminal stop the stack in order.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, lambda *_: supervisor.leave())
            with control.serving(folder, lambda request: answer(supervisor, request, environment)):
                return live(supervisor, output, ready)
    except FAILURES as error:
        print(f"devstack: {error}", file=sys.stderr)
        return FAILED


def live(supervisor: Supervisor, output: ProgressReport, ready: Callable[[float], str]) -> int:
    """Start, wait and stop; return 1 if the start failed."""
    start = time.monotonic()
    if supervisor.start():
        output.line(ready(time.monotonic() - start))
        supervisor.run()
    start = time.monotonic()
    output.line("stopping ...")
    supervisor.stop()
    output.line(f"stopped in {time.monotonic() - start:.1f} s")
    return 0 if supervisor.stop_requested else 1


def composed(settings: Settings, output: ProgressReport) -> list[Component]:
    """Return the components, after fetching their missing programs and making certificates."""
    if not settings.given("rabbitmq") and not rabbitmq.RELEASE.cached():
        fetch("rabbitmq", "35 MB", rabbitmq.RELEASE, output)
    names = [name for name in ("postgres", "valkey") if not settings.given(name)]
    if settings.tls and names and not secured.RELEASE.cached():
        fetch(", ".join(names), "30 MB", secured.RELEASE, output)
    tls.prepare(settings)
    return stack.components(settings, state.load_secrets(settings.state))


def fetch(name: str, size: str, release: Release, output: ProgressReport) -> None:
    """Fetch a release of Debian packages and report it."""
    start = time.monotonic()
    output.event(name, "fetching", None, f"Debian packages, {size}, once")
    release.fetch()
    output.event(name, "fetched", time.monotonic() - start)


def answer(
    supervisor: Supervisor,
    request: dict[str, str],
    environment: Callable[[], Mapping[str, str]],
) -> dict[str, Any]:
    """Carry out a request from the control socket and return its answer."""
    verb = request["verb"]
    if verb == "environment":
        return {"environment": environment()}
    if verb == "leave":
        supervisor.leave()
    elif verb in VERBS:
        supervisor.command(verb, request["component"])
    state_of_all = {"rows": supervisor.rows(), "unready": supervisor.unready()}
    return state_of_all | {"guardian": os.getppid()}


def ready_text(settings: Settings, took_s: float) -> str:
    """Return the addresses of the stack and a command that places an order."""
    gateway = settings.gateway_url
    trust = f"--cacert {tls.authority_file(settings)} " if settings.tls else ""
    order = (
        '{"userId": 1, "productId": 101, "quantity": 2, "total": 19.90, "paymentMethod": "card"}'
    )
    lines = [
        "",
        f"ready in {took_s:.1f} s",
        "",
        f"  API        {gateway}/api/orders      documentation {gateway}/docs",
        f"  logs       {settings.state}/logs       `make logs`, `make status`, `make demo`",
    ]
    if not settings.given("rabbitmq"):
        management = f"{settings.scheme}://127.0.0.1:{settings.ports['rabbitmq_management']}"
        secret = settings.state / "secrets.json"
        lines.append(f"  RabbitMQ   {management}      user orders, password in {secret}")
    if settings.tls:
        lines.append(
            f"  authority  {tls.authority_file(settings)}      verifies every server of it"
        )
    lines.append("  metrics    `make observe` adds Prometheus and Alertmanager")
    lines += [
        "",
        f"  curl -i {trust}{gateway}/api/orders -H 'Content-Type: application/json' \\",
        f"    -d '{order}'",
        "",
    ]
    return "\n".join(lines)
