"""Slow commits of `make bench`: a library that makes PostgreSQL's flush take longer, on demand."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.bench.generators import BenchFailed
from loadtest.bench.run import left_out
from loadtest.bench.slow_commits import COMMIT_MS, SlowCommits

FLUSH = """
import os, sys, time
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
began_s = time.monotonic()
for _ in range(20):
    os.fdatasync(file)
print(time.monotonic() - began_s)
"""


@pytest.mark.skipif(not shutil.which("cc") and not shutil.which("gcc"), reason="no C compiler")
def test_a_flush_takes_longer_while_it_is_asked_for(tmp_path: Path) -> None:
    slow = SlowCommits(tmp_path)
    environment = os.environ | dict(slow.environment())

    def flushing_s() -> float:
        words = [sys.executable, "-c", FLUSH, str(tmp_path / "file")]
        return float(subprocess.check_output(words, env=environment))

    slow.turn(on=True)
    assert flushing_s() >= 20 * COMMIT_MS / 1000
    slow.turn(on=False)
    assert not (tmp_path / "slow").exists()


def test_without_the_library_a_slow_slice_is_refused_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(BenchFailed, match="needs a C compiler"):
        SlowCommits(tmp_path).turn(on=True)


def test_a_run_without_a_compiler_says_what_it_leaves_out_and_goes_on(tmp_path: Path) -> None:
    lines: list[str] = []
    slow = SlowCommits(tmp_path)
    assert list(left_out(slow, ("post", "post-slow"), lines.append)) == ["post-slow"]
    assert lines == ["post-slow is left out: it needs a C compiler (cc or gcc)"]
    assert left_out(slow, ("post", "worker"), lines.append) == {}
