"""The health check that docs/argocd.md gives to Argo CD, in the Lua of a real Valkey.

Both are of version 5.1.
"""

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import redis

from integration.handles import Server

PAGE = Path(__file__).parents[2] / "docs" / "argocd.md"


def condition(kind: str, status: str, reason: str = "AsExpected") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": f"{kind} {reason}"}


READY, UNREADY = condition("Ready", "True"), condition("Ready", "False", "Pods")
PAUSED = condition("Ready", "False", "Paused")
STALLED, DEGRADED = (
    condition("Stalled", "True", "RolledBack"),
    condition("Degraded", "True", "Pods"),
)


@pytest.fixture(scope="module")
def script() -> str:
    """Return the page's script as a function of `obj`."""
    (text,) = re.findall(r"_OrderService: \|\n((?:    .*\n)+)", PAGE.read_text())
    body = textwrap.dedent(text)
    call = "return cjson.encode(health(cjson.decode(ARGV[1])))"
    return f"local function health(obj)\n{body}\nend\n{call}"


@pytest.mark.parametrize(
    ("status", "health"),
    [
        (None, "Progressing"),
        ({"observedGeneration": -1}, "Progressing"),
        ({"observedGeneration": 2}, "Progressing"),
        ({"observedGeneration": 1, "conditions": [READY]}, "Progressing"),
        ({"observedGeneration": 2, "conditions": [READY]}, "Healthy"),
        ({"observedGeneration": 2, "conditions": [STALLED, READY]}, "Degraded"),
        ({"observedGeneration": 2, "conditions": [PAUSED]}, "Suspended"),
        ({"observedGeneration": 2, "conditions": [UNREADY, DEGRADED]}, "Degraded"),
        ({"observedGeneration": 2, "conditions": [UNREADY]}, "Progressing"),
    ],
)
def test_argo_cd_sees_how_a_resource_is(
    valkey: Server, script: str, status: dict[str, Any] | None, health: str
) -> None:
    resource = {"metadata": {"generation": 2}, **({"status": status} if status else {})}
    with redis.Redis.from_url(valkey.url) as client:
        answer = json.loads(str(client.eval(script, 0, json.dumps(resource)), "utf-8"))
    assert answer["status"] == health
    assert answer["message"]
