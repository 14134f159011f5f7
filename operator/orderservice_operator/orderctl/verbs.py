"""What each verb of the command line does: reads, asks, prints, and returns the exit code."""

import asyncio
import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from orderservice_operator.children.manifest import Manifest
from orderservice_operator.crd import definition
from orderservice_operator.errors import OperatorError
from orderservice_operator.orderctl import actions, forecast_text, manifests
from orderservice_operator.orderctl import rollback as going_back
from orderservice_operator.orderctl.cluster import Cluster, Location, connected
from orderservice_operator.orderctl.plan import Forecast, forecast
from orderservice_operator.orderctl.screen import screen
from orderservice_operator.orderctl.style import style
from orderservice_operator.orderctl.view import view

OK: Final = 0
FAILED: Final = 1
CHANGES: Final = 2
_WATCH_S: Final = 2.0
_HOME_AND_CLEAR: Final = "\x1b[H\x1b[2J"


def plan(given: Namespace) -> int:
    """Print what would change: 0 nothing, 2 something, 1 the API server would refuse a part."""
    services, others = manifests.read(_read(given.filename))
    if not services:
        raise OperatorError(f"{given.filename} has no OrderService")
    if others:
        sys.stderr.write(f"orderctl: {others} objects of other kinds are not looked at\n")
    found = asyncio.run(_forecasts(given, services))
    sys.stdout.write(forecast_text.FORMS[given.output](found, style(given.color, sys.stdout)))
    if any(one.refused for one in found):
        return FAILED
    return CHANGES if any(one.changes for one in found) else OK


def status(given: Namespace) -> int:
    """Print the screen once, or until it is interrupted."""
    asyncio.run(_watch(given) if given.watch else _show(given))
    return OK


def pause(given: Namespace) -> int:
    """Pause a resource."""
    return _said(given, lambda cluster: actions.pause(cluster, given.name, given.reason))


def resume(given: Namespace) -> int:
    """Resume a resource."""
    return _said(given, lambda cluster: actions.resume(cluster, given.name))


def rollback(given: Namespace) -> int:
    """Go back to a revision, or take that back."""
    if given.undo:
        return _said(given, lambda cluster: going_back.undo(cluster, given.name))
    return _said(given, lambda cluster: going_back.go_back(cluster, given.name, given.to_revision))


def crd(_given: Namespace) -> int:
    """Print the CustomResourceDefinition."""
    sys.stdout.write(definition.FILE.read_text(encoding="utf-8"))
    return OK


VERBS: Final[Mapping[str, Callable[[Namespace], int]]] = {
    "plan": plan,
    "status": status,
    "pause": pause,
    "resume": resume,
    "rollback": rollback,
    "crd": crd,
}


def _place(given: Namespace, namespace: str = "") -> Location:
    """Say where to look; a file and an option may not name different namespaces."""
    if namespace and given.namespace and namespace != given.namespace:
        raise OperatorError(
            f"the file says namespace {namespace}, --namespace says {given.namespace}"
        )
    return Location(given.kubeconfig, given.context, namespace or given.namespace)


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"{name} cannot be read: {error}") from error


async def _forecasts(given: Namespace, services: list[Manifest]) -> list[Forecast]:
    found = []
    for manifest in services:
        async with connected(_place(given, manifest["metadata"].get("namespace", ""))) as cluster:
            found.append(await forecast(cluster, manifest))
    return found


async def _show(given: Namespace) -> None:
    async with connected(_place(given)) as cluster:
        sys.stdout.write(await _screen(given, cluster) + "\n")


async def _watch(given: Namespace) -> None:
    """Show it anew every few seconds; where there is no terminal, only when it has changed."""
    last = ""
    async with connected(_place(given)) as cluster:
        while True:
            text = await _screen(given, cluster)
            if sys.stdout.isatty():
                sys.stdout.write(f"{_HOME_AND_CLEAR}{text}\n")
            elif text != last:
                sys.stdout.write(f"{text}\n\n")
            sys.stdout.flush()
            last = text
            await asyncio.sleep(_WATCH_S)


async def _screen(given: Namespace, cluster: Cluster) -> str:
    found = await view(cluster, given.name)
    return screen(found, style(given.color, sys.stdout), datetime.now(UTC))


def _said(given: Namespace, act: Callable[[Cluster], Awaitable[str]]) -> int:
    async def main() -> str:
        async with connected(_place(given)) as cluster:
            return await act(cluster)

    sys.stdout.write(asyncio.run(main()) + "\n")
    return OK
