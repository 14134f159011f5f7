"""The verbs of the command line; each returns the exit code."""

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


def plan(options: Namespace) -> int:
    """Print what would change; return 0: nothing, 2: something, 1: a part would be refused."""
    services, ignored_count = manifests.read(_read(options.filename))
    if not services:
        raise OperatorError(f"{options.filename} has no OrderService")
    if ignored_count:
        sys.stderr.write(f"orderctl: ignored {ignored_count} objects of other kinds\n")
    forecasts = asyncio.run(_forecasts(options, services))
    sys.stdout.write(
        forecast_text.FORMS[options.output](forecasts, style(options.color, sys.stdout))
    )
    if any(forecast_.refused for forecast_ in forecasts):
        return FAILED
    return CHANGES if any(forecast_.changes for forecast_ in forecasts) else OK


def status(options: Namespace) -> int:
    """Print the screen once, or until it is interrupted."""
    asyncio.run(_watch(options) if options.watch else _show(options))
    return OK


def pause(options: Namespace) -> int:
    """Pause the operator's work on a resource and its children."""
    return _run_and_print(
        options, lambda cluster: actions.pause(cluster, options.name, options.reason)
    )


def resume(options: Namespace) -> int:
    """Resume the operator's work on a paused resource."""
    return _run_and_print(options, lambda cluster: actions.resume(cluster, options.name))


def rollback(options: Namespace) -> int:
    """Request a revision, or withdraw the request."""
    if options.undo:
        return _run_and_print(options, lambda cluster: going_back.undo(cluster, options.name))
    return _run_and_print(
        options, lambda cluster: going_back.go_back(cluster, options.name, options.to_revision)
    )


def crd(_given: Namespace) -> int:
    """Print the definition of OrderService as YAML."""
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


def _location(options: Namespace, namespace: str = "") -> Location:
    """Return the location; a file and an option must not name different namespaces."""
    if namespace and options.namespace and namespace != options.namespace:
        raise OperatorError(
            f"the file says namespace {namespace}, --namespace says {options.namespace}"
        )
    return Location(options.kubeconfig, options.context, namespace or options.namespace)


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"{name} cannot be read: {error}") from error


async def _forecasts(options: Namespace, services: list[Manifest]) -> list[Forecast]:
    forecasts = []
    for manifest in services:
        async with connected(
            _location(options, manifest["metadata"].get("namespace", ""))
        ) as cluster:
            forecasts.append(await forecast(cluster, manifest))
    return forecasts


async def _show(options: Namespace) -> None:
    async with connected(_location(options)) as cluster:
        sys.stdout.write(await _screen(options, cluster) + "\n")


async def _watch(options: Namespace) -> None:
    """Print the screen every few seconds; without a terminal, only if it has changed."""
    last = ""
    async with connected(_location(options)) as cluster:
        while True:
            text = await _screen(options, cluster)
            if sys.stdout.isatty():
                sys.stdout.write(f"{_HOME_AND_CLEAR}{text}\n")
            elif text != last:
                sys.stdout.write(f"{text}\n\n")
            sys.stdout.flush()
            last = text
            await asyncio.sleep(_WATCH_S)


async def _screen(options: Namespace, cluster: Cluster) -> str:
    content = await view(cluster, options.name)
    return screen(content, style(options.color, sys.stdout), datetime.now(UTC))


def _run_and_print(options: Namespace, act: Callable[[Cluster], Awaitable[str]]) -> int:
    async def main() -> str:
        async with connected(_location(options)) as cluster:
            return await act(cluster)

    sys.stdout.write(asyncio.run(main()) + "\n")
    return OK
