"""Bearer tokens for Inventory and Payment: sent with every call, and replaced without a failure."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from devstack.ports import free_port
from loadtest.repeating import Repeating
from orders.errors import SettingError, Unavailable
from orders.settings import UpstreamSettings, load
from orders.telemetry import context
from orders.upstream.credential import credential_of
from orders.upstream.http import Upstream
from orders.upstream.inventory import Inventory, Target, reserve_call
from orders.upstream.parallel import CallResult, ParallelCalls
from orders.upstream.policy import UpstreamPolicy
from upstreams.process import Control, running

POLICY = UpstreamPolicy(retries=0, breaker_failures=1000)


class Place(NamedTuple):
    """A simulator that accepts the token `first`, and the file that the token is in."""

    stock: Control
    file: Path

    @property
    def settings(self) -> UpstreamSettings:
        environ = {
            "ORDERS_INVENTORY_URL": self.stock.url,
            "ORDERS_INVENTORY_TOKEN_FILE": str(self.file),
        }
        return load(UpstreamSettings, environ)

    def upstream(self) -> Upstream:
        settings = self.settings
        return Upstream(
            "inventory",
            settings.inventory_url,
            POLICY,
            credential=credential_of(settings, "inventory"),
        )

    def accept(self, *tokens: str) -> None:
        status, answer = self.stock.send("PUT", "/control/tokens", {"tokens": tokens})
        assert (status, answer) == (200, {"accepted": len(tokens)})

    def write(self, token: str) -> None:
        """Replace the file in one step, as Kubernetes does."""
        draft = self.file.with_suffix(".part")
        draft.write_text(token)
        draft.rename(self.file)


@pytest.fixture(scope="module")
def stock() -> Iterator[Control]:
    with running("inventory", free_port(), UPSTREAMS_TOKENS="first other") as control:
        yield control


@pytest.fixture
def token_source(stock: Control, tmp_path: Path) -> Place:
    token_source = Place(stock, tmp_path / "token")
    token_source.accept("first")
    token_source.write("first\n")
    return token_source


def test_a_call_without_the_token_is_refused_and_asked_again_later(token_source: Place) -> None:
    with (
        closing(Upstream("inventory", token_source.stock.url, POLICY)) as upstream,
        pytest.raises(Unavailable, match="status 401"),
    ):
        Inventory(upstream).availability(1, 1)
    with closing(token_source.upstream()) as upstream:
        assert Inventory(upstream).availability(1, 1)


def test_a_rotation_under_load_fails_no_call(token_source: Place) -> None:
    """The order of a rotation: accept both, replace the file, accept the new one only."""
    with closing(token_source.upstream()) as upstream:
        ask = partial(Inventory(upstream).availability, 1, 1)
        with Repeating(ask, ask, ask, ask) as calls:
            for token in ("second", "third"):
                old = token_source.file.read_text().strip()
                token_source.accept(old, token)
                token_source.write(token)
                calls.go_on(40)
                token_source.accept(token)
                calls.go_on(40)


def test_calls_of_sets_of_orders_carry_the_token_of_the_moment(token_source: Place) -> None:
    ids = context.accept("test", None)[0]
    with closing(token_source.upstream()) as upstream, closing(ParallelCalls[int](4)) as calls:
        for token in ("first", "second"):
            token_source.write(token)
            token_source.accept(token)
            with context.using(ids):
                for number in range(8):
                    call = reserve_call(Target(f"{token}-{number}", number + 1), 1, 1)
                    calls.begin(number, upstream, call, lambda run, *args: run(*args))
                results: list[CallResult[int]] = []
                while len(results) < 8:
                    results += calls.wait(5)
            assert [result.error for result in results] == [None] * 8


@pytest.mark.parametrize("contents", ["", "two words", "half\x00", "ümlaut"])
def test_what_is_no_token_is_not_taken_over(token_source: Place, contents: str) -> None:
    with closing(token_source.upstream()) as upstream:
        inventory = Inventory(upstream)
        token_source.write(contents)
        assert inventory.availability(1, 1)
        token_source.file.unlink()
        assert inventory.availability(1, 1)
        token_source.accept("back")
        token_source.write("back")
        assert inventory.availability(1, 1)


def test_a_file_without_a_token_is_refused_at_the_start(token_source: Place) -> None:
    token_source.write("no token")
    with pytest.raises(SettingError, match="ORDERS_INVENTORY_TOKEN_FILE is wrong: the file holds"):
        credential_of(token_source.settings, "inventory")
    token_source.file.unlink()
    with pytest.raises(SettingError, match="cannot be read"):
        credential_of(token_source.settings, "inventory")


def test_a_url_with_a_user_and_a_token_are_too_much(token_source: Place) -> None:
    environ = {
        "ORDERS_INVENTORY_URL": "https://user:secret@stock",
        "ORDERS_INVENTORY_TOKEN_FILE": str(token_source.file),
    }
    with pytest.raises(SettingError, match="ORDERS_INVENTORY_URL has a user: use only one"):
        load(UpstreamSettings, environ)
