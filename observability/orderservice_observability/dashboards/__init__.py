"""The dashboards for Grafana, one JSON file each; `orderservice_dashboards` generates them."""

from importlib import resources


def texts() -> dict[str, str]:
    """Return the JSON of each dashboard by its name."""
    entries = sorted(resources.files(__name__).iterdir(), key=lambda entry: entry.name)
    return {
        entry.name.removesuffix(".json"): entry.read_text()
        for entry in entries
        if entry.name.endswith(".json")
    }
