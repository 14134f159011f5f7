"""The entry point: kopf watches OrderServices, and starts and stops the process."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import kopf
import structlog

from orderservice_operator.cluster.credentials import Credentials
from orderservice_operator.control import logs, settings
from orderservice_operator.control.operator import Operator
from orderservice_operator.control.settings import Settings
from orderservice_operator.errors import OperatorError
from orderservice_operator.resource.spec import GROUP, PLURAL, VERSION

_log = structlog.get_logger(__name__)


def main() -> int:
    """Run until a signal comes: 0 after a clean stop, 1 after a fault, 2 for a wrong setting."""
    try:
        operator_settings = settings.load(os.environ)
    except OperatorError as error:
        sys.stderr.write(f"orderservice-operator: {error}\n")
        return 2
    logs.configure(operator_settings.log_level)
    fault = threading.Event()

    def stop() -> None:
        """End as a signal would: kopf's own stop flag leaves a thread behind that waits for it."""
        fault.set()
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        kopf.run(
            registry=registry(operator_settings, stop),
            settings=kopf_settings(operator_settings.watch_silence_s),
            clusterwide=not operator_settings.namespace,
            namespaces=settings.namespaces(operator_settings),
            standalone=True,
        )
    except Exception:  # noqa: BLE001 any error becomes one log record, and the process is restarted
        _log.exception("operator.ended")
        return 1
    return 1 if fault.is_set() else 0


def kopf_settings(silence_s: float) -> kopf.OperatorSettings:
    """Return kopf's settings, without the defaults that would make it blind or let it write."""
    configuration = kopf.OperatorSettings()
    configuration.watching.server_timeout = 300
    configuration.watching.client_timeout = 330
    configuration.watching.connect_timeout = 10
    configuration.watching.inactivity_timeout = silence_s
    configuration.networking.request_timeout = 30
    configuration.process.ultimate_exiting_timeout = 25
    configuration.posting.enabled = False  # events are ours, deduplicated
    configuration.scanning.disabled = True  # needs no right to list all kinds and namespaces
    configuration.peering.standalone = True  # a Lease decides who leads
    return configuration


def registry(
    operator_settings: Settings, stop_process: Callable[[], None]
) -> kopf.OperatorRegistry:
    """Return the handlers: only `on.event`, which writes nothing to resources.

    The queue does the rest; see https://github.com/nolar/kopf/issues/844 for what `on.event` does
    not do.
    """
    handlers = kopf.OperatorRegistry()
    operators: list[Operator] = []

    @kopf.on.startup(registry=handlers)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        operators.append(Operator(operator_settings, Credentials(settings), stop_process))
        try:
            await operators[0].start()
        except OperatorError as error:  # kopf would start it a second time
            raise kopf.PermanentError(str(error)) from error

    @kopf.on.cleanup(registry=handlers)
    async def stop(**_: Any) -> None:
        await operators[0].stop()

    @kopf.on.login(registry=handlers)
    def login(**options: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**options) or kopf.login_with_kubeconfig(**options)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)
    async def on_event(event: Mapping[str, Any], **_: Any) -> None:
        operators[0].on_event(event["type"], event["object"])

    return handlers


if __name__ == "__main__":
    sys.exit(main())
