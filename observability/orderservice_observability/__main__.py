"""Write the rule files: `python -m orderservice_observability FOLDER`."""

import argparse
from pathlib import Path

from orderservice_observability.objectives import Objectives, Scope
from orderservice_observability.rules.model import Links
from orderservice_observability.written import files, manifests


def main() -> None:
    """Write rules with the default objectives for a service called `orders`."""
    parser = argparse.ArgumentParser(prog="orderservice_observability", description=__doc__)
    parser.add_argument("folder", type=Path, help="where observability/ is")
    parser.add_argument("--runbook-base-url", default="", help="where runbook.md is published")
    parser.add_argument("--dashboard-base-url", default="", help="Grafana, up to its /d/")
    arguments = parser.parse_args()
    links = Links(arguments.runbook_base_url, arguments.dashboard_base_url)
    scope, objectives, folder = Scope("orders"), Objectives(), arguments.folder
    for name, text in files(scope, objectives, links=links).items():
        (folder / "prometheus" / name).write_text(text)
    path = folder / "kubernetes" / "prometheus-rules.yaml"
    path.write_text(manifests(scope, objectives, links))


if __name__ == "__main__":
    main()
