"""Write the rule files: `python -m orderservice_observability FOLDER`."""

import sys
from pathlib import Path

from orderservice_observability.objectives import Objectives, Scope
from orderservice_observability.written import files, manifests


def main() -> None:
    """Write rules with the default objectives for a service called `orders`."""
    folder, scope, objectives = Path(sys.argv[1]), Scope("orders"), Objectives()
    for name, text in files(scope, objectives).items():
        (folder / "prometheus" / name).write_text(text)
    (folder / "kubernetes" / "prometheus-rules.yaml").write_text(manifests(scope, objectives))


if __name__ == "__main__":
    main()
