"""`make model`: check every case and show the table; 1 when one does not end as it has to."""

import argparse
import sys

from devstack.bootstrap import SetupFailed
from devstack.packages.debian import FetchFailed
from model.cases import FAIL, HOLD, Case
from model.tlc import Failed, Result, check

_ROW = "  {:38} {:26} {:>9} {:>8}  {}\n"


def main(argv: list[str]) -> int:
    """Run the cases that the arguments name and print their verdicts."""
    parser = argparse.ArgumentParser(prog="make model", description=__doc__)
    parser.add_argument("--only", default="", help="a part of the names of the cases to run")
    parser.add_argument("--trace", action="store_true", help="show TLC's output, too")
    options = parser.parse_args(argv)
    sys.stdout.write(_ROW.format("case", "verdict", "states", "seconds", ""))
    cases = [case for case in (*HOLD, *FAIL) if options.only in case.name]
    try:
        verdicts = [_verdict(case, trace=options.trace) for case in cases]
    except (SetupFailed, FetchFailed, Failed) as error:
        sys.stderr.write(f"model: {error}\n")
        return 1
    return 0 if verdicts and all(verdicts) else 1


def _verdict(case: Case, *, trace: bool) -> bool:
    result = check(case)
    expected = result.violated == case.fails
    comment = "as it has to" if expected else f"WRONG: {case.fails or 'nothing'} has to fail"
    verdict = f"{result.violated} fails" if result.violated else "holds"
    seconds = f"{result.seconds:.1f}"
    sys.stdout.write(_ROW.format(case.name, verdict, result.states, seconds, comment))
    if trace or not expected:
        _show(result)
    sys.stdout.flush()
    return expected


def _show(result: Result) -> None:
    sys.stdout.write(result.output)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
