"""Start a simulator as a separate process and control it: for tests and scripts."""

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

START_LIMIT_S: Final = 60.0
STOP_LIMIT_S: Final = 60.0
_decoder: Final = msgspec.json.Decoder(float_hook=Decimal)


class Control:
    """The control API of a running simulator."""

    def __init__(self, url: str) -> None:
        self.url = url

    def faults(self, **faults: float) -> None:
        """Set the faults, by their JSON names; those not named are off."""
        self.send("PUT", "/control/faults", faults)

    def stock(self, product_id: int, available: int) -> None:
        """Set the units of a product that may still be reserved."""
        self.send("PUT", f"/control/stock/{product_id}", {"available": available})

    def ledger(self) -> list[dict[str, Any]]:
        """Return the ledger; amounts are Decimals."""
        rows: list[dict[str, Any]] = self.send("GET", "/control/ledger")[1]
        return rows

    def deliveries(self) -> list[dict[str, Any]]:
        """Return the webhooks received."""
        rows: list[dict[str, Any]] = self.send("GET", "/control/deliveries")[1]
        return rows

    def reset(self) -> None:
        """Forget everything, faults included."""
        self.send("POST", "/control/reset")

    def send(
        self,
        method: str,
        path: str,
        content: object = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Send a request; return status and decoded body. `content` may be bytes."""
        raw = content if isinstance(content, bytes) else msgspec.json.encode(content)
        request = urllib.request.Request(  # noqa: S310 the address is this machine's
            self.url + path, method=method, data=None if content is None else raw
        )
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
                return response.status, _decode(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _decode(error.read())


@contextlib.contextmanager
def running(name: str, port: int, *, log: Path | None = None, **environ: str) -> Iterator[Control]:
    """Run `python -m upstreams <name>` inside the block; its output goes to the file `log`."""
    root = Path(__file__).parent.parent
    with (log or Path(os.devnull)).open("ab") as output:
        child = subprocess.Popen(  # noqa: S603 our own command
            [sys.executable, "-m", "upstreams", name],
            env={**os.environ, "PYTHONPATH": str(root), "UPSTREAMS_PORT": str(port), **environ},
            stdout=output,
        )
    control = Control(f"http://127.0.0.1:{port}")
    try:
        _await(control, child)
        yield control
    finally:
        child.terminate()
        try:
            child.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            raise


def _await(control: Control, child: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + START_LIMIT_S
    while child.poll() is None and time.monotonic() < deadline_s:
        with contextlib.suppress(OSError):
            control.send("GET", "/livez")
            return
        time.sleep(0.05)
    raise RuntimeError(f"the simulator did not start: exit code {child.poll()}")


def _decode(raw: bytes) -> Any:
    return _decoder.decode(raw) if raw else None
