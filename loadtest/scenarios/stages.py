"""The day grows busier, stage by stage."""

from loadtest.objectives import ALWAYS, PAID
from loadtest.scenario import Crowd, Phase, Scenario, Step, at_most

_STAGE_S = 12
_USERS = (4, 7, 10, 13)

SCENARIO = Scenario(
    name="stages",
    proves="latency does not grow with load: the busiest stage still meets the objectives",
    steps=tuple(Step(seconds=_STAGE_S, users=users, rate=10) for users in _USERS),
    crowds=(Crowd(kind="shopper", pace_s=2.5),),
    phases=tuple(
        Phase(f"{users}-users", number * _STAGE_S, (number + 1) * _STAGE_S)
        for number, users in enumerate(_USERS)
    ),
    thresholds=(
        *ALWAYS,
        *PAID,
        at_most("all.error_ratio", 0),
        *(at_most(f"create.p95_ms@{users}-users", 300) for users in _USERS),
        *(at_most(f"poll.p95_ms@{users}-users", 100) for users in _USERS),
    ),
)
