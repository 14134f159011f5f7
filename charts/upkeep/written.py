"""What is written, as data: every file with its content."""

import json
from pathlib import Path
from typing import Final

from upkeep import schema, table

CHARTS: Final = Path(__file__).resolve().parents[1]
OPERATOR: Final = CHARTS / "orderservice-operator"
ENVIRONMENT: Final = CHARTS / "orderservice-environment"
_MARK: Final = "<!-- values -->"


def files() -> dict[Path, str]:
    """Return every file that is written from another one."""
    made = {chart / "README.md": _readme(chart) for chart in (OPERATOR, ENVIRONMENT)}
    made |= {
        OPERATOR / "values.schema.json": _json(schema.operator()),
        ENVIRONMENT / "values.schema.json": _json(schema.environment(_definition())),
    }
    return made


def _readme(chart: Path) -> str:
    template = (chart / "README.md.gotmpl").read_text()
    return template.replace(_MARK, table.markdown((chart / "values.yaml").read_text()))


def _definition() -> str:
    return (OPERATOR / "files" / "orderservices.yaml").read_text()


def _json(content: object) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"  # noqa: TID251 - for people
