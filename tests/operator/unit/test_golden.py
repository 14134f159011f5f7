"""An upgrade of the operator alone must restart no pod of anybody.

When this fails and the change of a template is wanted, it is worth a line in the changelog: every
pod of every resource is replaced when that operator is rolled out.
"""

from typing import Any

import pytest

from orderservice_operator.manifest import digest

GOLDEN: dict[str, dict[str, str]] = {
    "minimal": {
        "minimal-api": "7cf021835c",
        "minimal-relay": "811f2fd825",
        "minimal-worker": "f12aaf1891",
        "minimal-notifier": "7bf4e56e56",
    },
    "full": {
        "full-api": "22ff487040",
        "full-relay": "62e3452779",
        "full-worker": "fc59d86b5b",
        "full-notifier": "69dbfa3b2d",
    },
}


@pytest.mark.parametrize("example", ["minimal", "full"])
def test_pod_templates_stay_what_they_are(children: Any, example: str) -> None:
    made = {
        name: digest(child["spec"]["template"])
        for (kind, name), child in children(example).items()
        if kind == "Deployment"
    }
    assert made == GOLDEN[example]
