"""`orderctl` as people run it: a process with arguments, a kubeconfig, an environment."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import yaml

from kube.api import Object

OPERATOR = Path(__file__).parents[3] / "operator"
COMMAND = [sys.executable, "-m", "orderservice_operator.orderctl"]
# Each call is a process of its own, forked from one that has the modules loaded: most of a start is
# that. One that hangs is ended by the alarm.
_ZYGOTE = """
import json, os, signal, sys, traceback
from orderservice_operator.orderctl import main, verbs

def live(call):
    signal.alarm(240)
    os.environ.clear()
    os.environ.update(call["environ"])
    for number, file in enumerate(call["files"]):
        os.dup2(os.open(file, os.O_RDWR), number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")
    sys.argv = ["orderctl", *call["arguments"]]
    try:
        code = main.main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

for line in sys.stdin:
    if (child := os.fork()) == 0:
        live(json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

Ended = subprocess.CompletedProcess[str]


@cache
def _zygote() -> "subprocess.Popen[str]":
    """Start the process that all calls are forked from; it ends with us, when its input does."""
    return subprocess.Popen(
        [sys.executable, "-c", _ZYGOTE],
        env=os.environ | {"PYTHONPATH": str(OPERATOR)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


class Orderctl:
    """Runs it; `environ` is added to what it inherits."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self.folder = folder
        inherited = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
        self.environ = inherited | {"PYTHONPATH": str(OPERATOR), "KUBECONFIG": str(kubeconfig)}

    def __call__(self, *arguments: str, stdin: str = "", **environ: str) -> Ended:
        files = [self.folder / name for name in ("stdin", "stdout", "stderr")]
        for file, content in zip(files, (stdin, "", ""), strict=True):
            file.write_text(content)
        call = {
            "arguments": arguments,
            "environ": self.environ | environ,
            "files": [str(file) for file in files],
        }
        zygote = _zygote()
        assert zygote.stdin
        assert zygote.stdout
        zygote.stdin.write(json.dumps(call) + "\n")
        zygote.stdin.flush()
        code = int(zygote.stdout.readline())
        return Ended(arguments, code, files[1].read_text(), files[2].read_text())

    def plan(self, manifest: Object, namespace: str, *arguments: str) -> Ended:
        """Plan a manifest, given as a file."""
        file = self.folder / "resource.yaml"
        file.write_text(yaml.safe_dump(manifest))
        return self("plan", "-f", str(file), "-n", namespace, *arguments)

    def changes(self, manifest: Object, namespace: str) -> set[tuple[str, str, str]]:
        """Return the changes of a plan, as (action, kind, name)."""
        process = self.plan(manifest, namespace, "-o", "json")
        assert process.returncode in {0, 2}, process.stderr + process.stdout
        (plan,) = json.loads(process.stdout)
        return {(change["action"], change["kind"], change["name"]) for change in plan["changes"]}
