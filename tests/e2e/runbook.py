"""The commands that the runbook tells people to type, typed.

Those for one dead letter need one, and are tried where the whole stack runs without a cluster.
"""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from images.workshop import REPOSITORY

_TEXT: Final = (REPOSITORY / "observability" / "runbook.md").read_text()
_TYPED: Final = re.compile(r"^    ((?:k|kubectl|in_worker) .+)$", re.MULTILINE)
_IN_PROSE: Final = re.compile(r"`((?:k|kubectl|in_worker) [^`]+)`")
_FIRST: Final = re.compile(r"^    NS=.+?(?=\n\n)", re.MULTILINE | re.DOTALL)
# They need what this cluster has not: an earlier revision, a dead letter, a notification that was
# given up, an Ingress.
_LEFT_OUT: Final = (
    "k rollout undo", "<message id>", "--id 01890a5d", "notifications resend", "describe ingress",
)  # fmt: skip
_CHANGES: Final = re.compile("patch|restart|delete|replay")


def commands() -> list[str]:
    """Return every command, those that change something last, with what has to be filled in."""
    unique = dict.fromkeys(_TYPED.findall(_TEXT) + _IN_PROSE.findall(" ".join(_TEXT.split())))
    typable = [command for command in unique if not any(words in command for words in _LEFT_OUT)]
    return sorted(
        typable, key=lambda command: (bool(_CHANGES.search(command)), "delete" not in command)
    )


def typed(command: str, filled_in: Mapping[str, str], kubectl: Path, kubeconfig: Path) -> str:
    """Type a command after the lines at the top; return what is wrong with what came of it.

    What `grep` or `head` makes of an answer does not count.
    """
    for placeholder, value in filled_in.items():
        command = command.replace(f"<{placeholder}>", value)
    command = command.replace("4711", filled_in["id"])  # the page's example of an order
    (first,) = _FIRST.findall(_TEXT)
    # `head` that reads on to the end: whoever writes to one that has left fails, now and then.
    head = "head() { sed -n 1,10p; }"
    pod = f"POD={filled_in['pod']}"
    lines = ["shopt -s expand_aliases", head, first, pod, command, "exit ${PIPESTATUS[0]}"]
    path = f"{kubectl.parent}:{os.environ['PATH']}"
    with tempfile.TemporaryFile("w+") as output:
        shell = subprocess.Popen(
            ["bash", "-c", "\n".join(lines)],
            env=os.environ | {"KUBECONFIG": str(kubeconfig), "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            code = shell.wait(timeout=120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)  # what it left in the background, too
        output.seek(0)
        return f"{command}\n{output.read()}" if code else ""
