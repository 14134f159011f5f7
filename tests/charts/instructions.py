"""The Secrets that docs/kubernetes.md tells people to make before they install an environment."""

import shlex
from pathlib import Path
from typing import Final

_PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "kubernetes.md"


def commands(environment: str) -> list[str]:
    """Return the page's commands for an environment, in its order."""
    section = _PAGE.read_text().split("## Environments")[1].split("\n## ")[0]
    common, production = section.split("for production only")
    text = {"dev": "", "staging": common, "prod": common + production}[environment]
    lines = map(str.strip, text.splitlines())
    return [line for line in lines if line.startswith("kubectl -n shop create secret")]


def secrets(environment: str) -> dict[str, set[str]]:
    """Return the Secrets that they make, each with its entries."""
    words = [shlex.split(command) for command in commands(environment)]
    option = "--from-literal="
    return {
        line[line.index("generic") + 1]: {
            word.removeprefix(option).split("=")[0] for word in line if word.startswith(option)
        }
        for line in words
    }


def filled(command: str, namespace: str) -> str:
    """Return a command with something in the place of what it leaves open."""
    text = command.replace("-n shop ", f"-n {namespace} ")
    return text.replace("://…", "://u:p@server.example").replace("…", "c2VjcmV0")
