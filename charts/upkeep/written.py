"""What is written, as data: every file with its content."""

import json
from pathlib import Path
from typing import Final

from orders.database import roles
from orderservice_topology import redis_users
from upkeep import schema, table

CHARTS: Final = Path(__file__).resolve().parents[1]
OPERATOR: Final = CHARTS / "orderservice-operator"
ENVIRONMENT: Final = CHARTS / "orderservice-environment"
_REPOSITORY: Final = CHARTS.parent
_DASHBOARDS: Final = _REPOSITORY / "observability/orderservice_observability/dashboards"
# Copies, not symbolic links: Flux and some packagers drop links, and Helm then renders nothing.
_COPIES: Final = {
    "orderservices.yaml": "operator/orderservice_operator/crd/orderservices.yaml",
    "role.yaml": "operator/orderservice_operator/rbac/role.yaml",
    "external_metrics_role.yaml": "operator/orderservice_operator/rbac/external_metrics_role.yaml",
    "platform.rules.yaml": "observability/prometheus/platform.rules.yaml",
}
_PREFIX: Final = "PREFIX:"  # replaced in the template
_MARK: Final = "<!-- values -->"


def files() -> dict[Path, str]:
    """Return every file that is written from another one."""
    files = {chart / "README.md": _readme(chart) for chart in (OPERATOR, ENVIRONMENT)}
    definition = (_REPOSITORY / _COPIES["orderservices.yaml"]).read_text()
    files |= {
        OPERATOR / "values.schema.json": _json(schema.operator()),
        ENVIRONMENT / "values.schema.json": _json(schema.environment(definition)),
    }
    files[ENVIRONMENT / "files" / "redis-users.yaml"] = _redis_users()
    files[ENVIRONMENT / "files" / "database-roles.yaml"] = (
        "# Written by `make charts`: see services/orders/database/roles.py.\n"
        f"processes: [{', '.join(roles.PROCESSES)}]\n"
    )
    return files | _copies()


def _copies() -> dict[Path, str]:
    """Return the operator's files that its chart installs."""
    folder = OPERATOR / "files"
    copies = {folder / name: (_REPOSITORY / path).read_text() for name, path in _COPIES.items()}
    dashboards = sorted(_DASHBOARDS.glob("*.json"))
    return copies | {folder / "dashboards" / path.name: path.read_text() for path in dashboards}


def _redis_users() -> str:
    """Return the rules of each user of Redis, for a prefix that the template knows."""
    users = {"orders": redis_users.installation(), **redis_users.users()}
    lines = (f"{user}: {rules.acl(_PREFIX)}\n" for user, rules in users.items())
    return "".join(("# Written by `make charts`: see services/orderservice_topology.\n", *lines))


def _readme(chart: Path) -> str:
    template = (chart / "README.md.gotmpl").read_text()
    return template.replace(_MARK, table.markdown((chart / "values.yaml").read_text()))


def _json(content: object) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"  # noqa: TID251 - for people
