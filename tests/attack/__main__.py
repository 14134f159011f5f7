"""Attack the apis and gateways of a separate stack with generated and hostile requests."""

import argparse
import os
import secrets
import signal
import sys
from collections.abc import Callable, Sequence

from attack import costs, documented, pressure, targets
from attack.load import MIB, Load
from attack.targets import Target

CLEAN, FELL, COULD_NOT_RUN = 0, 1, 2
GROWTH_LIMIT = 5 * MIB
DEAR_MS, WAIT_LIMIT_MS, CLIENTS = 10.0, 2000.0, 300
_ERRORS_SHOWN = 10  # the apis log nothing but errors

Say = Callable[[str], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 if nothing fell, 1 if something did, 2 if it could not be tried."""
    chosen = _arguments(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seed = secrets.randbelow(1_000_000_000) if chosen.seed is None else chosen.seed
    say(f"attack: seed {seed}")
    try:
        with targets.servers() as place, targets.running(place) as attacked:
            fallen = attack(attacked, chosen, seed, say)
    except KeyboardInterrupt:
        say("attack: stopped")
        return COULD_NOT_RUN
    except Exception as error:  # noqa: BLE001 whatever it is, nothing was judged
        say(f"attack: could not run: {error!r}")
        return COULD_NOT_RUN
    for text in fallen:
        say(f"  FELL: {text}")
    say("attack: nothing fell" if not fallen else f"attack: {len(fallen)} fell")
    return FELL if fallen else CLEAN


def attack(
    attacked: Sequence[Target], chosen: argparse.Namespace, seed: int, say: Say
) -> list[str]:
    """Return a text for each check that failed."""
    fallen = []
    if chosen.examples:
        for target in attacked:
            holds, text = documented.check(target, chosen.examples, seed)
            say(f"  {target.name}: {'as documented' if holds else 'NOT as documented'}")
            if not holds:
                fallen.append(f"{target.name} does not answer as documented\n{text}")
    return [*fallen, *_measured(attacked, say), *_loaded(attacked, chosen, seed, say)]


def _measured(attacked: Sequence[Target], say: Say) -> list[str]:
    measured = {target.name: costs.measure(target) for target in attacked}
    for line in costs.table(measured):
        say(line)
    return [*costs.dear(measured, DEAR_MS), *_waits(attacked, say)]


def _waits(attacked: Sequence[Target], say: Say) -> list[str]:
    fallen = []
    for target in attacked:
        for crowd, wait in pressure.waits(target, CLIENTS).items():
            text = f"{target.name}, beside {crowd}: {wait.longest_ms:.0f} ms at most"
            say(f"  {text}, {wait.refused} refused")
            # 300 requests at once are more than an api takes: for a moment others get 503, too.
            if wait.refused > pressure.PROBES / 4 or wait.longest_ms > WAIT_LIMIT_MS:
                fallen.append(f"{text}, {wait.refused} refused")
    return fallen


def _loaded(
    attacked: Sequence[Target], chosen: argparse.Namespace, seed: int, say: Say
) -> list[str]:
    load = Load(attacked, seed, chosen.inputs, chosen.minutes * 60)
    try:
        load.run(say)
    finally:  # whoever stops it wants to see what there is, too
        for line in page(load):
            say(line)
        for target in attacked:
            for line in target.api.log.read_text(errors="replace").splitlines()[-_ERRORS_SHOWN:]:
                say(f"  {target.name} logged: {line}")
    return verdict(load)


def verdict(load: Load) -> list[str]:
    """Return what fell: answers, processes, memory."""
    growth = {name: size for name, size in load.growth().items() if size > GROWTH_LIMIT}
    return [
        *map(str, load.faults),
        *(f"{name} is gone" for name in load.lost()),
        *(f"{name} grew by {size / MIB:.1f} MiB" for name, size in growth.items()),
    ]


def page(load: Load) -> list[str]:
    """Return what was sent and what came of it, as lines."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(load.sent.items()))
    answers = ", ".join(f"{status}: {count}" for status, count in sorted(load.answers.items()))
    grown = max(load.growth().values(), default=0) / MIB
    problems = f"{load.unexpected} x 5xx not asked for, {len(load.lost())} processes lost"
    return [
        f"  {load.count} inputs in {load.took_s:.0f} s: {kinds}",
        f"  answers: {answers}",
        f"  {problems}, {grown:.1f} MiB grown at most after the first 40 %",
    ]


def say(text: str) -> None:
    """Print a line without buffering it."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="attack", description=__doc__)
    parser.add_argument("--minutes", type=float, help="of generated inputs (default: 5)")
    parser.add_argument("--inputs", type=int, help="how many of them, instead of minutes")
    parser.add_argument("--seed", type=int, help="of the first input (default: a new one)")
    parser.add_argument(
        "--examples", type=int, default=50, help="of each operation by schemathesis; 0: none"
    )
    chosen = parser.parse_args(argv)
    if chosen.minutes is None:
        chosen.minutes = 5.0 if chosen.inputs is None else 24 * 60.0
    return chosen


if __name__ == "__main__":
    sys.exit(main() or os.EX_OK)
