"""The command line: `python -m upstreams inventory|payment|webhooks`."""

import argparse
import os
import sys
from typing import Final

from upstreams import inventory, logs, payment, settings, webhooks
from upstreams.server import CreateApp, Simulator
from upstreams.settings import SettingError

SIMULATORS: Final[dict[str, tuple[CreateApp, int]]] = {
    "inventory": (inventory.create_app, 8091),
    "payment": (payment.create_app, 8092),
    "webhooks": (webhooks.create_app, 8093),
}


def main() -> int:
    """Serve the simulator named on the command line until SIGTERM or Ctrl-C."""
    name = _parser().parse_args().simulator
    create_app, default_port = SIMULATORS[name]
    try:
        simulator_settings = settings.load(os.environ, default_port=default_port)
        if name == "webhooks":
            webhooks.signing_keys(simulator_settings.webhook_secret)
    except SettingError as error:
        print(f"{name}: {error}", file=sys.stderr)  # noqa: T201 the logs are not configured yet
        return 2
    logs.configure(simulator_settings.log_level, f"{name}-simulator")
    Simulator(name, simulator_settings, create_app).run()
    return 0


def _parser() -> argparse.ArgumentParser:
    ports = ", ".join(f"{name} {port}" for name, (_, port) in SIMULATORS.items())
    parser = argparse.ArgumentParser(
        prog="python -m upstreams",
        description="Stand-ins for the external services, with scripted faults and a ledger.",
        epilog=f"environment (default port: {ports}):\n{settings.describe()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("simulator", choices=sorted(SIMULATORS))
    return parser
