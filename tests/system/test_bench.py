"""`make bench`, once through in its smallest form, with every program that it needs."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from loadtest.bench import peer
from loadtest.bench.results import BenchReport
from loadtest.drill.stack import SERVICES

SMALLEST = ["--rounds", "1", "--seconds", "1", "--connections", "4", "--processes", "1"]
# The other requests differ in their bounds, which test_bench_generators.py tries.
SUBJECTS = ("post", "relay", "worker", "whole")
# Its build takes minutes, and modules from the network.
WITHOUT_GO = [] if peer.built() else ["--without-go"]


def test_the_bench_measures_its_subjects_and_leaves_nothing_but_its_report(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    results = tmp_path / "results"
    environ = os.environ | {"PYTHONPATH": f"{SERVICES.parent}:{SERVICES}", "COLUMNS": "160"}
    process = subprocess.run(
        [sys.executable, "-m", "loadtest.bench", *SMALLEST, "--only", ",".join(SUBJECTS),
         "--results", str(results), *WITHOUT_GO],
        env=environ, capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    [saved] = results.glob("*.json")
    report = msgspec.json.decode(saved.read_bytes(), type=BenchReport)
    assert tuple(subject.name for subject in report.subjects) == SUBJECTS
    for subject in report.subjects:
        for subject_name in subject.samples:
            assert subject.rate(subject_name).median > 0, f"{subject.name}: {subject_name}"
        for own_ratio, peer_values in subject.compared:
            assert f"{own_ratio} / {peer_values}" in process.stdout
    post = next(subject for subject in report.subjects if subject.name == "post")
    # Not Valkey: the limit is counted in batches, so its share may be below what is shown.
    assert {"api", "postgres"} <= set(post.cpu_us("straight"))
    assert ("go" in post.samples) == (not WITHOUT_GO)
    assert report.left_out == ({"go": "--without-go"} if WITHOUT_GO else {})
    assert report.memory["api"].total_mib > 0
    assert not (results / "data").exists()


def test_a_run_says_what_is_wrong_with_its_arguments() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "loadtest.bench", "--only", "post,nothing"],
        env=os.environ | {"PYTHONPATH": f"{SERVICES.parent}:{SERVICES}"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert process.returncode == 2
    assert "there is no nothing" in process.stderr
