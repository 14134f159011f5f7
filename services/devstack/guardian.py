"""A parent process that leaves nothing running, even if the supervisor is killed.

The guardian is the supervisor's parent and nearest subreaper: it inherits processes whose parent
died, and ends them. If the guardian itself is killed, the kernel signals the supervisor to stop.
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
    """Run `main` in a child process, end all processes that it left, and return its exit code.

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
    """Run `main` as a program would run; print an error and return 1."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        return main()
    except KeyboardInterrupt:
        return 130
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - the last place where it can be reported
        traceback.print_exc()
        return 1


def forward_signals(child: int) -> None:
    """Pass the signals that ask for a stop to the supervisor; Ctrl-C reaches it directly."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: os.kill(child, received))


def wait_for(child: int) -> int:
    """Wait for the supervisor to end; reap other processes that end before."""
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code  # as a shell reports a signal


def end_descendants() -> None:
    """Kill all descendants of this process until none is left."""
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
