"""The command line: what it starts it ends, and what it cannot run it refuses."""

import signal
from collections import defaultdict
from pathlib import Path

import pytest

from loadtest import catalogue, cli
from loadtest.scenario import Scenario, at_least, at_most
from loadtest.sizing import sized
from loadtest.target.addresses import SetupFailed, Target
from loadtest.target.local_stack import LocalStack, StackFailed
from loadtest.verdict import ExitCode


class Stack(LocalStack):
    """Notes the verbs, and fails at one of them."""

    def __init__(self, folder: Path, fails: str = "") -> None:
        super().__init__(folder)
        self.fails = fails
        self.verbs: list[str] = []

    def addresses(self) -> dict[str, str]:
        return defaultdict(str)

    def _verb(self, *verb: str) -> str:
        self.verbs += verb
        if self.fails in verb:
            raise StackFailed(self.fails)
        return ""


class Interrupted(Stack):
    """Is interrupted by a second Ctrl-C while it stops."""

    def stop(self) -> None:
        signal.raise_signal(signal.SIGINT)


def begin(stack: Stack) -> None:
    with cli.placed(cli.parser().parse_args(["smoke"]), {}, stack):
        pass


def test_a_stack_that_another_run_holds_is_not_stopped(tmp_path: Path) -> None:
    stack = Stack(tmp_path, fails="clean-state")
    with pytest.raises(StackFailed, match="clean-state"):
        begin(stack)
    assert stack.verbs == ["clean-state"]


def test_a_stack_that_did_not_start_whole_is_stopped(tmp_path: Path) -> None:
    stack = Stack(tmp_path, fails="start")
    with pytest.raises(StackFailed, match="start"):
        begin(stack)
    assert stack.verbs == ["clean-state", "start", "stop"]


def test_nothing_interrupts_the_end_of_a_stack(tmp_path: Path) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        begin(Interrupted(tmp_path))
    finally:
        signal.signal(signal.SIGINT, handlers[0])
        signal.signal(signal.SIGTERM, handlers[1])


def test_a_scenario_that_cannot_be_run_leaves_the_others_their_verdicts(tmp_path: Path) -> None:
    outcomes = iter([ExitCode.INVARIANT, None, ExitCode.PASSED])

    def decide(_: Scenario) -> ExitCode:
        if (outcome := next(outcomes)) is None:
            raise SetupFailed("broken off")
        return outcome

    stack = Stack(tmp_path)
    stack.start()
    target = Target(host="http://localhost", stack=stack)
    smoke = catalogue.find("smoke")
    assert list(cli.run_each([smoke] * 3, target, decide)) == [2, 3, 0]
    assert stack.verbs == ["start", "stop", "clean-state", "start"]


@pytest.mark.parametrize("argv", [["--scale", "much"], ["smoke", "smoke", "--worker-of", "x"]])
def test_what_cannot_be_understood_is_3(argv: list[str]) -> None:
    assert cli.main(argv, {}) == ExitCode.SETUP


def test_being_asked_for_help_is_0() -> None:
    assert cli.main(["--help"], {}) == ExitCode.PASSED


def test_a_scenario_with_settings_of_its_own_has_the_stack_started_anew(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    stack.adopt({"ORDERS_API_MAX_WAIT_MS": "200"})
    stack.start()
    stack.adopt({"ORDERS_API_MAX_WAIT_MS": "200"})
    assert stack.verbs == ["start"]
    stack.adopt({})
    assert stack.verbs == ["start", "stop", "start"]


def test_thresholds_are_read_from_the_command_line() -> None:
    argv = ["smoke", "--threshold", "create.p99_ms<=200", "--threshold", "create.rate >= 5"]
    assert cli.parser().parse_args(argv).threshold == [
        at_most("create.p99_ms", 200),
        at_least("create.rate", 5),
    ]
    assert cli.main(["smoke", "--threshold", "create.p99_ms<200"], {}) == ExitCode.SETUP


def test_open_arrivals_are_shared_by_the_users_there_will_be() -> None:
    scenario = sized(catalogue.find("baseline"), rate=30, scale=2)
    assert {crowd.arrivals_per_s for crowd in scenario.crowds} == {1.5}
