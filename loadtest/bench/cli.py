"""The command line of `make bench`."""

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from devstack.packages.debian import FetchFailed
from devstack.program import StartFailed
from devstack.state import StateError
from loadtest.bench import sizing, table
from loadtest.bench.generators import BenchFailed
from loadtest.bench.machine import REPOSITORY
from loadtest.bench.results import BenchReport
from loadtest.bench.run import SUBJECTS, Log, Scope, run
from loadtest.bench.testbed import RunPlan

DOCUMENT: Final = REPOSITORY / "docs" / "benchmarks.md"
SIZES: Final = REPOSITORY / "docs" / "scaling.md"
ROUNDS: Final = 6  # an even number, so that each contestant is first as often as last
SECONDS: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and save; 0 done, 2 could not measure, 130 interrupted."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began_s = time.monotonic()
    console = Console()

    def log(text: str) -> None:
        print(f"{time.monotonic() - began_s:5.0f} s  {text}", file=sys.stderr, flush=True)

    try:
        report = _run(options, log)
    except (BenchFailed, StartFailed, FetchFailed, StateError, TimeoutError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted, everything it started has ended", file=sys.stderr)
        return 130
    table.show(report, console, _last(options.results))
    path = options.results / f"{report.at:%Y%m%dT%H%M%S}-{report.commit}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    print(f"saved {path}")
    if options.document:
        _document(report)
    return 0


def _document(report: BenchReport) -> None:
    DOCUMENT.write_text(table.inserted(DOCUMENT.read_text(), report))
    names = {subject.name for subject in report.subjects}
    if gaps := sizing.NEEDED - names:
        print(f"{SIZES} is left as it is: the run lacks {', '.join(sorted(gaps))}")
        return
    SIZES.write_text(table.inserted(SIZES.read_text(), report, sizing.sheets(report)))


def _run(options: argparse.Namespace, log: Log) -> BenchReport:
    rounds, seconds = (2, 1) if options.quick else (options.rounds, options.seconds)
    plan = RunPlan(seconds, options.connections, options.processes)
    scope = Scope(options.only, plan, rounds, options.before, go=not options.without_go)
    return run(options.results.absolute(), scope, log)


def _last(folder: Path) -> BenchReport | None:
    """Return the last saved run that can be read."""
    for path in sorted(folder.glob("*.json"), reverse=True):
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(path.read_bytes(), type=BenchReport)
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=__doc__)
    parser.add_argument(
        "--only",
        type=_subjects,
        default=SUBJECTS,
        help=f"subjects, by comma [{','.join(SUBJECTS)}]",
    )
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 s: to see it work")
    parser.add_argument("--rounds", type=_count, default=ROUNDS, help=f"[{ROUNDS}]")
    parser.add_argument("--seconds", type=_count, default=SECONDS, help=f"of a slice [{SECONDS}]")
    parser.add_argument("--connections", type=_count, default=32, help="HTTP connections [32]")
    parser.add_argument("--processes", type=_count, default=4, help="processes of the api [4]")
    parser.add_argument("--before", type=Path, help="another checkout, whose services take part")
    parser.add_argument("--without-go", action="store_true", help="leave the service in Go out")
    parser.add_argument("--results", type=Path, default=REPOSITORY / ".bench", help="[.bench]")
    parser.add_argument(
        "--document",
        action="store_true",
        help=f"write the tables into docs/{DOCUMENT.name} and {SIZES.name}",
    )
    return parser


def _subjects(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - set(SUBJECTS):
        raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}")
    return tuple(name for name in SUBJECTS if name in names)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("expected a number from 1")
    return int(text)
