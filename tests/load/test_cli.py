"""The command line: what it starts it ends, and what it cannot run it refuses."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loadtest import cli
from loadtest.target.local_stack import StackFailed


class Stack:
    """Notes what it is told, and fails at one verb."""

    def __init__(self, fails: str) -> None:
        self.fails = fails
        self.told: list[str] = []

    def clear(self) -> None:
        self._do("clear")

    def start(self) -> None:
        self._do("start")

    def stop(self) -> None:
        self._do("stop")

    def _do(self, verb: str) -> None:
        self.told.append(verb)
        if verb == self.fails:
            raise StackFailed(verb)


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, verb: str) -> Iterator[Stack]:
    stack = Stack(verb)
    monkeypatch.setattr(cli, "LocalStack", lambda _: stack)
    with pytest.raises(StackFailed, match=verb):
        yield stack


def begin(folder: Path) -> None:
    with cli.place(cli.parser().parse_args(["smoke"]), {}, folder):
        pass


def test_a_stack_that_another_run_holds_is_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with failing(monkeypatch, "clear") as stack:
        begin(tmp_path)
    assert stack.told == ["clear"]


def test_a_stack_that_did_not_start_whole_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with failing(monkeypatch, "start") as stack:
        begin(tmp_path)
    assert stack.told == ["clear", "start", "stop"]
