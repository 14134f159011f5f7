"""The values that all processes of a run share; each reads them from the environment once."""

import os
from collections.abc import Mapping

import msgspec

from loadtest.catalogue import find
from loadtest.locusts.counting import Tally
from loadtest.locusts.identity import Tokens, baggage, signing
from loadtest.scenario import Scenario
from loadtest.sizing import sized


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """The run as a Locust process knows it."""

    scenario: Scenario
    run: str
    signing: Tokens | None
    tally: Tally

    @property
    def baggage(self) -> str:
        """Return the `baggage` header that marks this run's traffic."""
        return baggage(self.scenario.name, self.run)


def load(environ: Mapping[str, str] = os.environ) -> Context:
    """Read the scenario, the run and the key from `LOADTEST_*`."""
    duration = environ.get("LOADTEST_DURATION")
    return Context(
        scenario=sized(
            find(environ["LOADTEST_SCENARIO"]),
            seconds=float(duration) if duration else None,
            scale=float(environ.get("LOADTEST_SCALE") or 1),
            rate=float(rate) if (rate := environ.get("LOADTEST_RATE")) else None,
        ),
        run=environ["LOADTEST_RUN"],
        signing=signing(environ),
        tally=Tally(),
    )
