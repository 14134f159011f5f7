"""The start of the operator's process, where there is nothing to talk to."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec

NOBODY = """\
apiVersion: v1
kind: Config
clusters: [{name: t, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: t, user: {token: x}}]
contexts: [{name: t, context: {cluster: t, user: t}}]
current-context: t
"""


def test_without_an_api_server_it_ends_with_an_error_to_be_started_again(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(NOBODY)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "KUBECONFIG": str(kubeconfig),
        "OPERATOR_ADMIN_HOST": "127.0.0.1",
        "OPERATOR_ADMIN_PORT": "0",
        "OPERATOR_LEASE": "false",
    }
    process = subprocess.run(
        [sys.executable, "-m", "orderservice_operator"],
        env=environment,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert process.returncode == 1, process.stderr.decode()[-2000:]
    lines = (process.stdout + process.stderr).splitlines()
    assert any(b"127.0.0.1:9" in line for line in lines)
    for line in lines:
        msgspec.json.decode(line)
