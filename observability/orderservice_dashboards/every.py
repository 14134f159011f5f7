"""The list of all dashboards."""

from typing import Final

from orderservice_dashboards import (
    api,
    dependencies,
    lifecycle,
    messaging,
    operator,
    overview,
    runtime,
)

EVERY: Final = (
    overview.OVERVIEW,
    api.API,
    lifecycle.LIFECYCLE,
    messaging.MESSAGING,
    dependencies.DEPENDENCIES,
    runtime.RUNTIME,
    operator.OPERATOR,
)
