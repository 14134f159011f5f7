"""`python -m control_plane build|run`: make the binaries, or run a control plane until Ctrl-C."""

import signal
import sys
import threading

from control_plane.binaries import Missing, build, find
from control_plane.plane import ControlPlane


def main(verb: str) -> int:
    """Do it; 2 for a wrong verb, 1 when the binaries are missing."""
    try:
        if verb == "build":
            sys.stdout.write(f"{build()}\n")
            return 0
        if verb == "run":
            return _run()
    except Missing as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stderr.write(f"{__doc__}\n")
    return 2


def _run() -> int:
    plane = ControlPlane(find())
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        plane.start()
        sys.stdout.write(f"export KUBECONFIG={plane.kubeconfig}\n")
        sys.stdout.flush()
        ended.wait()
    finally:
        plane.stop()
    return 0


sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
