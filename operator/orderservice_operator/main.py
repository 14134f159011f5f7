"""Where the operator begins: kopf owns the watch of OrderServices and the life of the process."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import kopf
import structlog

from orderservice_operator import logs, settings
from orderservice_operator.cluster.credentials import Credentials
from orderservice_operator.errors import OperatorError
from orderservice_operator.process import Operator
from orderservice_operator.resource.spec import GROUP, PLURAL, VERSION
from orderservice_operator.settings import Settings

_log = structlog.get_logger(__name__)


def main() -> int:
    """Run until a signal comes: 0 after a clean stop, 1 after a fault, 2 for a wrong setting."""
    try:
        given = settings.load(os.environ)
    except OperatorError as error:
        sys.stderr.write(f"orderservice-operator: {error}\n")
        return 2
    logs.configure(given.log_level)
    broken = threading.Event()

    def stop() -> None:
        """End as a signal would: kopf's own stop flag leaves a thread behind that waits for it."""
        broken.set()
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        kopf.run(
            registry=registry(given, stop),
            settings=kopf_settings(given.watch_silence_s),
            clusterwide=not given.namespace,
            namespaces=[given.namespace] if given.namespace else [],
            standalone=True,
        )
    except Exception:  # noqa: BLE001 whatever it was, it ends as one record and is started again
        _log.exception("operator.ended")
        return 1
    return 1 if broken.is_set() else 0


def kopf_settings(silence_s: float) -> kopf.OperatorSettings:
    """Return kopf's settings: none of its defaults that lets it go blind, or write."""
    made = kopf.OperatorSettings()
    made.watching.server_timeout = 300
    made.watching.client_timeout = 330
    made.watching.connect_timeout = 10
    made.watching.inactivity_timeout = silence_s
    made.networking.request_timeout = 30
    made.process.ultimate_exiting_timeout = 25
    made.posting.enabled = False  # events are ours, deduplicated
    made.scanning.disabled = True  # needs no right to list all kinds and namespaces
    made.peering.standalone = True  # who leads is a Lease's to say
    return made


def registry(given: Settings, stop_process: Callable[[], None]) -> kopf.OperatorRegistry:
    """Return the handlers: `on.event` alone, which writes nothing on resources.

    Source: https://github.com/nolar/kopf/issues/844 for what it does not do: the queue does it.
    """
    made = kopf.OperatorRegistry()
    running: list[Operator] = []

    @kopf.on.startup(registry=made)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        running.append(Operator(given, Credentials(settings), stop_process))
        try:
            await running[0].start()
        except OperatorError as error:  # kopf would start a second time what runs already
            raise kopf.PermanentError(str(error)) from error

    @kopf.on.cleanup(registry=made)
    async def stop(**_: Any) -> None:
        await running[0].stop()

    @kopf.on.login(registry=made)
    def login(**known: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**known) or kopf.login_with_kubeconfig(**known)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=made)
    async def saw(event: Mapping[str, Any], **_: Any) -> None:
        running[0].saw(event["type"], event["object"])

    return made


if __name__ == "__main__":
    sys.exit(main())
