"""An upgrade of the operator alone must not restart any pod.

If this fails and you want the change of the template, announce it in the changelog: the new
operator replaces every pod of every resource.
"""

from typing import Any

import pytest

from orderservice_operator.children.context import Context
from orderservice_operator.children.manifest import digest

UNMIGRATED = Context(migrated=False)

GOLDEN: dict[str, dict[str, str]] = {
    "minimal": {
        "minimal-api": "5e03a6f001",
        "minimal-relay": "ce7d78213b",
        "minimal-worker": "685be911a4",
        "minimal-notifier": "ddf75ea3a7",
    },
    "full": {
        "full-api": "1d44bad7cc",
        "full-relay": "8e01842e1c",
        "full-worker": "4ce14a01ca",
        "full-notifier": "66f9e9f5bf",
    },
}


@pytest.mark.parametrize("example", ["minimal", "full"])
def test_pod_templates_stay_what_they_are(children: Any, example: str) -> None:
    digests = {
        name: digest(child["spec"]["template"])
        for (kind, name), child in children(example).items()
        if kind == "Deployment"
    }
    assert digests == GOLDEN[example]


# A Job that is there is left as it is; this is what the next one would be.
JOBS = {"minimal": "08dc4ba9dc", "full": "dbfd80a7d7"}


@pytest.mark.parametrize("example", ["minimal", "full"])
def test_the_template_of_a_migration_stays_what_it_is(children: Any, example: str) -> None:
    jobs = [child for (kind, _), child in children(example, UNMIGRATED).items() if kind == "Job"]
    assert [digest(job["spec"]["template"]) for job in jobs] == [JOBS[example]]
