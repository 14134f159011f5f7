"""Annotations that people and programs set on an OrderService."""

from typing import Final

from orderservice_operator.resource.spec import GROUP

# Asks for a revision instead of the spec: `<ControllerRevision>@<generation>`.
ROLLBACK_ANNOTATION: Final = f"{GROUP}/rollback"
# The reason for which a person paused a resource.
PAUSE_ANNOTATION: Final = f"{GROUP}/paused-because"
