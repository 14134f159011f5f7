"""The rules that `make observe` has evaluated."""

import json
from pathlib import Path

import yaml

from devstack import settings
from devstack.servers import prometheus


def rules_of(folder: Path) -> set[str]:
    """Name the alerts and recorded series of the files that the configuration names."""
    (pattern,) = json.loads((folder / "prometheus.yaml").read_text())["rule_files"]
    files = Path(pattern).parent.glob(Path(pattern).name)
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    return {rule.get("alert") or rule["record"] for group in groups for rule in group["rules"]}


def test_nobody_is_paged_for_the_operator_that_is_not_there(tmp_path: Path) -> None:
    all_rules = {
        rule.get("alert") or rule["record"]
        for file in settings.RULES.glob("*.rules.yaml")
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    }
    prometheus.write_configuration(settings.load({"DEVSTACK_STATE": str(tmp_path)}), tmp_path)
    assert all_rules - rules_of(tmp_path) == {"OperatorDown"}
    assert {"Watchdog", "OrderTargetDown"} <= rules_of(tmp_path)


def test_rules_of_ones_own_are_taken_as_they_are(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    rule = {"alert": "OperatorDown", "expr": "vector(1)"}
    text = json.dumps({"groups": [{"name": "a", "rules": [rule]}]})
    (own / "a.rules.yaml").write_text(text)
    loaded = settings.load({"DEVSTACK_STATE": str(tmp_path), "DEVSTACK_RULES": str(own)})
    prometheus.write_configuration(loaded, tmp_path)
    assert rules_of(tmp_path) == {"OperatorDown"}
