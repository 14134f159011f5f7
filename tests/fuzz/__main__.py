"""Try the parser of the api's HTTP server for some minutes: `make fuzz MINUTES=60`."""

import argparse
import os
import sys
import time
from collections import Counter

from fuzz import driver
from fuzz.build import running, sanitizer

_SAY_S = 60


def main() -> int:
    """Return 0 when every input was answered as it should be; else say its seed."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=None, help="first seed (default: by the clock)")
    arguments = parser.parse_args()
    if sanitizer() is None:
        print("fuzz: gcc with AddressSanitizer is needed", file=sys.stderr)
        return 2
    first = int(time.time()) * 1000 if arguments.seed is None else arguments.seed
    return _fuzz(first, arguments.minutes * 60)


def _fuzz(first: int, for_s: float) -> int:
    start_s = reported = time.monotonic()
    statuses: Counter[int] = Counter()
    seed = first
    with running(sanitized=True) as server:
        while time.monotonic() - start_s < for_s:
            try:
                statuses += driver.check(server.socket, seed)
            except (driver.WrongAnswer, OSError) as error:
                print(f"fuzz: {error!r} at seed {seed}\n{server.log.read_text()[:5000]}")
                return 1
            seed += 1
            if time.monotonic() - reported > _SAY_S:
                reported = time.monotonic()
                _say(seed - first, reported - start_s, statuses)
    _say(seed - first, time.monotonic() - start_s, statuses)
    return 0


def _say(inputs: int, seconds: float, statuses: Counter[int]) -> None:
    by_status = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
    print(f"{inputs} inputs in {seconds / 60:.1f} min, no fault ({by_status})", flush=True)


if __name__ == "__main__":
    sys.exit(main() or os.EX_OK)
