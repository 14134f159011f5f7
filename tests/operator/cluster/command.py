"""`orderctl` as people run it: a process with a kubeconfig."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml
from control_plane.api import Object

OPERATOR = Path(__file__).parents[3] / "operator"
COMMAND = [sys.executable, "-m", "orderservice_operator.orderctl"]

Ended = subprocess.CompletedProcess[str]


class Orderctl:
    """Runs it; `environ` is added to what it inherits."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self.folder = folder
        kept = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
        self.environ = kept | {"PYTHONPATH": str(OPERATOR), "KUBECONFIG": str(kubeconfig)}

    def __call__(self, *arguments: str, stdin: str = "", **environ: str) -> Ended:
        return subprocess.run(
            [*COMMAND, *arguments],
            input=stdin,
            env=self.environ | environ,
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
        )

    def plan(self, manifest: Object, namespace: str, *arguments: str) -> Ended:
        """Plan a manifest, given as a file."""
        file = self.folder / "resource.yaml"
        file.write_text(yaml.safe_dump(manifest))
        return self("plan", "-f", str(file), "-n", namespace, *arguments)

    def changes(self, manifest: Object, namespace: str) -> set[tuple[str, str, str]]:
        """Return what a plan says, as (action, kind, name)."""
        ended = self.plan(manifest, namespace, "-o", "json")
        assert ended.returncode in {0, 2}, ended.stderr
        (found,) = json.loads(ended.stdout)
        return {(one["action"], one["kind"], one["name"]) for one in found["changes"]}
