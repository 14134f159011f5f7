"""See to it that nothing outlives the stack, even when its supervisor is killed.

The guardian is the parent of the supervisor and the nearest subreaper above it: what loses its
parent is handed to the guardian, which ends it. Should the guardian be killed, the kernel tells
the supervisor to stop.
"""

import ctypes
import os
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress

import psutil

# From linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def guarded(main: Callable[[], int]) -> int:
    """Run `main` in a child process and give its exit code, leaving no process behind.

    Call it before any thread is started.
    """
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    guardian = os.getpid()
    child = os.fork()
    if child == 0:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        os._exit(exit_code(main) if os.getppid() == guardian else 1)
    forward_signals(child)
    code = wait_for(child)
    end_descendants()
    return code


def exit_code(main: Callable[[], int]) -> int:
    """Run `main` as a program would be run: an error is printed and gives 1."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        return main()
    except KeyboardInterrupt:
        return 130
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - the last place where it can be told
        traceback.print_exc()
        return 1


def forward_signals(child: int) -> None:
    """Hand the signals that ask for an end to the supervisor; Ctrl-C reaches it by itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: os.kill(child, received))


def wait_for(child: int) -> int:
    """Wait for the supervisor's end; reap whatever else ends meanwhile."""
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code  # as a shell tells it


def end_descendants() -> None:
    """Kill everything that is left below us, until nothing is."""
    while descendants := psutil.Process().children(recursive=True):
        for process in descendants:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        with suppress(ChildProcessError):
            os.waitpid(-1, 0)


def prctl(option: int, value: int) -> None:
    """Set a process attribute; Linux only."""
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
