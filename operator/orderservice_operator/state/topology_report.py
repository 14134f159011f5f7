"""The state of a broker, for the status."""

from collections.abc import Mapping
from typing import Final

import msgspec

from orderservice_operator.resource.spec import OrderService
from orderservice_operator.resource.status import ConditionStatus, QueueDepth

# Reasons that only people can mend; one that passes by itself does not degrade a service.
LOSING: Final = "OperatorPolicyLosesMessages"
PROBLEMS: Final = frozenset({"Mismatch", LOSING, "PolicyShadowed", "Refused", "VhostShared"})


class TopologyReport(msgspec.Struct, frozen=True):
    """The condition TopologyReady, and the depth of the two queues people ask about."""

    status: ConditionStatus
    reason: str
    message: str
    queues: Mapping[str, QueueDepth] = {}


def remembered(service: OrderService) -> TopologyReport:
    """Return the report that the status still has, so that a restart by itself writes nothing."""
    for condition in service.status.conditions:
        if condition.type == "TopologyReady":
            return TopologyReport(condition.status, condition.reason, condition.message)
    return TopologyReport("Unknown", "NotLooked", "not looked at yet")
