"""Runs the load generators and reads their output."""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from loadtest.bench import tools
from loadtest.bench.statements import script

_LUA: Final = Path(__file__).with_name("requests.lua")
_LATENCY_MS: Final = re.compile(r"^latency average = ([\d.]+) ms", re.MULTILINE)
_TPS: Final = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)
_DONE: Final = re.compile(r"actually processed: (\d+)")
_FAILED: Final = re.compile(r"^number of failed transactions: ([1-9]\d*)", re.MULTILINE)


class BenchFailed(Exception):
    """The measurement is invalid: read the program's output."""


class Throughput(NamedTuple):
    """The number of units, units a second, and the latency of a unit."""

    done: int
    rate: float
    p50_ms: float | None = None
    p99_ms: float | None = None


class _Wrk(msgspec.Struct):
    requests: int
    micros: int
    p50: int
    p99: int
    broken: int
    refused: int


class Load(NamedTuple):
    """The requests that wrk sends, for ids from `first` to `last`."""

    kind: str
    first: int
    last: int
    connections: int


def wrk(url: str, load: Load, seconds: int) -> Throughput:
    """Send requests for some seconds. Raises BenchFailed if a request failed or was lost."""
    argv = [tools.program("wrk"), "-t1", f"-c{load.connections}", f"-d{seconds}", "-s", str(_LUA)]
    text = _run([*argv, url, "--", load.kind, str(load.first), str(load.last)])
    summary = msgspec.json.decode(text.rstrip().rpartition("\n")[2], type=_Wrk)
    if summary.broken or summary.refused:
        message = (
            f"{url}: {summary.refused} refused and {summary.broken} broken of {summary.requests}"
        )
        raise BenchFailed(message)
    rate = summary.requests / summary.micros * 1e6
    return Throughput(summary.requests, rate, summary.p50 / 1000, summary.p99 / 1000)


class PgBench(NamedTuple):
    """A pgbench with prepared statements and generic plans, as our connections have."""

    program: Path
    url: str
    options: str  # of a session

    def run(self, lines: str, variables: Mapping[str, str | int], *how: str) -> Throughput:
        """Run a script. Raises BenchFailed."""
        definitions = [
            word for name, value in variables.items() for word in ("-D", f"{name}={value}")
        ]
        with script(lines) as path:
            argv = [str(self.program), "-n", "-M", "prepared", "-f", str(path), *definitions, *how]
            server = urlsplit(self.url)
            argv += ["-h", str(server.hostname), "-p", str(server.port)]
            argv += ["-U", str(server.username), server.path.lstrip("/")]
            text = _run(argv, self._environment())
        if _FAILED.search(text):
            raise BenchFailed(text)
        return Throughput(
            int(_number(_DONE, text)), _number(_TPS, text), _number(_LATENCY_MS, text)
        )

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "PGPASSWORD": urlsplit(self.url).password or "",
            "PGOPTIONS": self.options,
        }


def redis_get(port: int, key: str, connections: int, count: int) -> Throughput:
    """Have redis-benchmark GET one key."""
    argv = [tools.program("redis-benchmark"), "-p", str(port), "-c", str(connections)]
    text = _run([*argv, "-n", str(count), "--csv", "GET", key])
    *_, line = text.strip().splitlines()
    _, rate, _, _, p50, _, p99, _ = (word.strip('"') for word in line.split('","'))
    return Throughput(count, float(rate), float(p50), float(p99))


def _number(pattern: "re.Pattern[str]", text: str) -> float:
    match = pattern.search(text)
    if match is None:
        raise BenchFailed(text)
    return float(match[1])


def _run(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    process = subprocess.run(  # noqa: S603 programs and words of our own
        argv, capture_output=True, text=True, check=False, env=environment or tools.environment()
    )
    if process.returncode != 0:
        raise BenchFailed(
            f"{argv[0]} failed ({process.returncode}): {process.stderr.strip()[-800:]}"
        )
    return process.stdout
