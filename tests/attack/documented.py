"""schemathesis: makes requests from the OpenAPI document and compares the answers with it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from attack.targets import Target

TESTS: Final = Path(__file__).parents[1]
_WITHIN_S: Final = 3600
# These two would have to know which orders exist, and 405 is promised by HTTP, not by a document.
_NOT_CHECKED: Final = ("use_after_free", "ensure_resource_availability", "unsupported_method")


def check(
    target: Target, examples: int, seed: int, phases: str = "examples,coverage,fuzzing,stateful"
) -> tuple[bool, str]:
    """Return whether all answers were as documented, and what schemathesis wrote."""
    argv = [
        str(Path(sys.executable).with_name("schemathesis")),
        "--config-file", str(Path(__file__).with_name("schemathesis.toml")), "run",
        f"{target.api.url}/openapi.json", "--url", target.api.url,
        "--phases", phases, "--max-examples", str(examples), "--seed", str(seed), "--no-color",
        "--exclude-checks", ",".join(_NOT_CHECKED), "--generation-database", "none",
        *(word for field in target.fields() for word in ("--header", field)),
    ]  # fmt: skip
    path = os.pathsep.join([str(TESTS), str(TESTS.parent / "services")])
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "attack.hooks", "PYTHONPATH": path}
    process = subprocess.run(
        argv, cwd=target.api.log.parent, env=environment, capture_output=True, text=True,
        check=False, timeout=_WITHIN_S,
    )  # fmt: skip
    return process.returncode == 0, process.stdout + process.stderr
