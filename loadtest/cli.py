"""The command line: `python -m loadtest [SCENARIO …]`; without one, the list of them."""

import argparse
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from loadtest import catalogue, verdict
from loadtest.drive import MASTER_PORT, Generators, environment, worker_command
from loadtest.report import artefacts, progress
from loadtest.run import RunOptions, run
from loadtest.scenario import Scenario, threshold
from loadtest.sizing import sized
from loadtest.target.addresses import (
    SetupFailed,
    Target,
    refuse_unless_named,
    refuse_unless_there,
    refuse_what_cannot_be_done,
    target_from_environment,
    target_of_stack,
)
from loadtest.target.http import Unreachable
from loadtest.target.local_stack import REPOSITORY, TOKEN_PARTY, LocalStack, StackFailed
from loadtest.verdict import ExitCode

NO_SETTINGS: Final[Mapping[str, str]] = {}
_SETUP_FAULTS: Final = (SetupFailed, Unreachable, StackFailed, catalogue.UnknownScenario, OSError)


def main(argv: list[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """List scenarios, run them, or serve as a worker; return the worst exit code."""
    try:
        args = parser().parse_args(argv)
    except SystemExit as end:  # argparse's own 2 would say that an invariant is broken
        return ExitCode.SETUP if end.code else ExitCode.PASSED
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a pod's end ends as Ctrl-C does
    try:
        if not args.scenario:
            return show_list()
        if args.worker_of:
            return work(args, environ)
        return run_all(args, environ)
    except Exception as error:  # noqa: BLE001 after any error there is no verdict
        return could_not_run(error)
    except KeyboardInterrupt:
        return 130


def could_not_run(error: Exception) -> ExitCode:
    """Print the reason; for an unexpected error, also its place."""
    if not isinstance(error, _SETUP_FAULTS):
        traceback.print_exception(error)
    print(f"loadtest: {str(error) or repr(error)}", file=sys.stderr)
    return ExitCode.SETUP


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    arguments = argparse.ArgumentParser(
        prog="python -m loadtest",
        description="Put the order service under load and check that it meets its thresholds.",
        epilog="exit codes: 0 passed, 1 a threshold, 2 an invariant, 3 could not be run",
    )
    arguments.add_argument(
        "scenario", nargs="*", help="scenarios by name, or `all`; none: list them"
    )
    arguments.add_argument("--host", help="a service that already runs [a local stack]")
    arguments.add_argument("--wait", type=float, default=0, metavar="S", help="for the host [0]")
    arguments.add_argument(
        "--duration", type=float, metavar="S", help="stretch the load to S seconds"
    )
    arguments.add_argument(
        "--scale", type=float, default=1, metavar="X", help="multiply the customers by X"
    )
    arguments.add_argument(
        "--rate", type=float, metavar="N", help="N journeys arrive a second, whatever the answers"
    )
    arguments.add_argument(
        "--threshold", action="append", default=[], metavar="F<=N", type=threshold,
        help="add a threshold: `create.p99_ms<=200`, `create.rate>=50`, or with `==`",
    )  # fmt: skip
    arguments.add_argument(
        "--abort-on-fail", action="store_true", help="end the load at the first breach (1)"
    )
    arguments.add_argument(
        "--processes", type=int, default=2, help="Locust workers forked here [2]"
    )
    arguments.add_argument(
        "--workers", type=int, default=0, help="wait for this many workers instead"
    )
    arguments.add_argument(
        "--master-port",
        type=int,
        default=MASTER_PORT,
        help="where workers connect",
    )
    arguments.add_argument(
        "--worker-of", metavar="HOST[:PORT]", help="run as a worker of this master"
    )
    arguments.add_argument(
        "--ui", action="store_true", help="Locust's web page while it runs (8089)"
    )
    arguments.add_argument(
        "--by-hand", action="store_true", help="prompt for faults that we cannot cause"
    )
    arguments.add_argument(
        "--regression", type=float, metavar="R", help="fail above R × the baseline"
    )
    arguments.add_argument("--save-baseline", action="store_true", help="make this the baseline")
    return arguments


def show_list() -> int:
    """Print every scenario with what it proves."""
    for scenario in catalogue.every():
        print(f"  {scenario.name:<17} {scenario.seconds:4.0f} s  {scenario.proves}")
    return ExitCode.PASSED


def work(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Be a Locust worker until its master ends the run."""
    [scenario] = args.scenario
    catalogue.find(scenario)
    variables = {
        "LOADTEST_SCENARIO": scenario,
        "LOADTEST_RUN": environ.get("LOADTEST_RUN", "remote"),
    }
    process = subprocess.run(  # noqa: S603 our own command
        worker_command(args.worker_of), env=environment(variables), check=False
    )
    return ExitCode.PASSED if process.returncode == 0 else ExitCode.SETUP


def run_all(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the scenarios one after the other on one target; the worst verdict counts."""
    names = list(catalogue.NAMES) if args.scenario == ["all"] else args.scenario
    scenarios = [
        sized(catalogue.find(name), seconds=args.duration, scale=args.scale, rate=args.rate)
        for name in names
    ]
    folder = Path(environ.get("LOADTEST_FOLDER") or REPOSITORY / ".loadtest").absolute()
    with placed(args, environ, LocalStack(folder / "state"), scenarios[0].settings) as target:
        refuse_unless_there(target, args.wait)
        for scenario in scenarios:
            refuse_what_cannot_be_done(scenario, target, by_hand=args.by_hand)
        refuse_unless_named(environ.get("LOADTEST_RUN", ""), target, workers=args.workers)
        decide = partial(run_one, target=target, options=options(args, environ, folder, target))
        return verdict.worst(run_each(scenarios, target, decide))


def run_each(
    scenarios: list[Scenario], target: Target, decide: Callable[[Scenario], ExitCode]
) -> Iterator[ExitCode]:
    """Run one after the other; one that cannot be run leaves the others their verdicts."""
    restart = False
    for scenario in scenarios:
        try:
            if restart and target.stack is not None:  # broken off with who knows what stopped
                target.stack.stop()
                target.stack.clear()
                target.stack.start()
            restart = False
            if target.stack is not None:
                target.stack.adopt(scenario.settings)
            yield decide(scenario)
        except Exception as error:  # noqa: BLE001 after any error this scenario has no verdict
            restart = True
            yield could_not_run(error)


def run_one(scenario: Scenario, target: Target, options: RunOptions) -> ExitCode:
    """Run one scenario; print the result as the last line of the output."""
    progress.say(f"{scenario.name}: {scenario.proves} ({scenario.seconds:.0f} s, {target.host})")
    result = run(scenario, target, options)
    if target.stack is None:
        progress.say(artefacts.encoded(result).decode())
    return result.verdict


@contextmanager
def placed(
    args: argparse.Namespace,
    environ: Mapping[str, str],
    stack: LocalStack,
    settings: Mapping[str, str] = NO_SETTINGS,
) -> Iterator[Target]:
    """Give the service to be put under load: the one named, or our own stack for the block.

    Our own begins with the settings of the first scenario.
    """
    if args.host:
        yield target_from_environment(args.host, environ)
        return
    stack.adopt(settings)
    progress.say("starting a stack")
    stack.clear()  # outside the block: what another run holds is not ours to stop
    try:
        stack.start()
        yield target_of_stack(stack)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C leaves nothing running
            signal.signal(number, signal.SIG_IGN)
        stack.stop()


def options(
    args: argparse.Namespace, environ: Mapping[str, str], folder: Path, target: Target
) -> RunOptions:
    """Gather what holds for every scenario of this call."""
    variables = {name: value for name, value in environ.items() if name.startswith("LOADTEST_")}
    if target.stack is not None:
        variables |= {
            "LOADTEST_JWT_KEY": target.stack.key,
            "LOADTEST_JWT_ALGORITHM": "HS256",
            "LOADTEST_JWT_ISSUER": TOKEN_PARTY,
            "LOADTEST_JWT_AUDIENCE": TOKEN_PARTY,
        }
    if args.duration:
        variables["LOADTEST_DURATION"] = str(args.duration)
    if args.rate:
        variables["LOADTEST_RATE"] = str(args.rate)
    return RunOptions(
        folder=folder,
        environ=variables | {"LOADTEST_SCALE": str(args.scale)},
        generators=Generators(
            processes=args.processes, workers=args.workers, port=args.master_port, web=args.ui
        ),
        regression=args.regression,
        thresholds=tuple(args.threshold),
        abort=args.abort_on_fail,
        save_baseline=args.save_baseline,
    )
