"""The state of a broker, for the status."""

from collections.abc import Mapping
from typing import Final

import msgspec

from orderservice_operator.resource.spec import OrderService
from orderservice_operator.resource.status import ConditionStatus, QueueDepth

# Reasons that need a person; a temporary one does not degrade a service.
LOSING: Final = "OperatorPolicyLosesMessages"
PROBLEMS: Final = frozenset({"Mismatch", LOSING, "PolicyShadowed", "Refused", "VhostShared"})


class TopologyReport(msgspec.Struct, frozen=True):
    """The condition TopologyReady, and the depth of the two work queues."""

    status: ConditionStatus
    reason: str
    message: str
    queues: Mapping[str, QueueDepth] = {}


def remembered(service: OrderService) -> TopologyReport:
    """Return the report from the status, so that a restart alone writes nothing."""
    for condition in service.status.conditions:
        if condition.type == "TopologyReady":
            return TopologyReport(condition.status, condition.reason, condition.message)
    return TopologyReport("Unknown", "NotLooked", "not checked yet")
