"""`make cluster-up` and `cluster-down`: a control plane for people."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from kube.existing import ExistingCluster


@pytest.mark.usefixtures("binaries")
def test_a_cluster_comes_up_once_answers_and_leaves_nothing(tmp_path: Path) -> None:
    state = tmp_path / "cluster"

    def do(verb: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "control_plane", verb],
            env={
                **os.environ,
                "CLUSTER_STATE": str(state),
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            },
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    start = do("up")
    try:
        assert start.returncode == 0, start.stderr
        kubeconfig = start.stdout.strip().rpartition("=")[2]
        cluster = ExistingCluster(Path(kubeconfig))
        with cluster.session() as session:
            assert session.get(f"{cluster.url}/readyz", timeout=30).text == "ok"
        cluster.stop()
        report = do("up")
        assert (report.returncode, "already up" in report.stderr) == (1, True)
    finally:
        stop = do("down")
    assert stop.returncode == 0, stop.stderr
    assert not state.exists()
    assert not [process for process in psutil.process_iter(["cmdline"]) if _is_in(state, process)]


def _is_in(state: Path, process: psutil.Process) -> bool:
    return any(str(state) in word for word in process.info["cmdline"] or [])
