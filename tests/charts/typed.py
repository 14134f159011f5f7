"""Pages' commands, to be typed as they are written."""

import re
from typing import Final

from charts.helm import CHARTS

_DOCS: Final = CHARTS.parent / "docs"
_BLOCK: Final = re.compile(r"(?:^    .*\\\n)*^    .*$", re.MULTILINE)
_IN_PROSE: Final = re.compile(r"`((?:helm|kubectl|orderctl) [^`]+)`")
_TOOLS: Final = frozenset({"helm", "kubectl", "orderctl"})


def commands(page: str) -> list[str]:
    """Return every command of a page: of its blocks in their order, then of its sentences."""
    text = (_DOCS / page).read_text()
    blocks = [re.sub(r"\\\n\s*", " ", block).strip() for block in _BLOCK.findall(text)]
    typed = [block for block in blocks if block.split()[0] in _TOOLS]
    return list(dict.fromkeys([*typed, *_IN_PROSE.findall(" ".join(text.split()))]))


def block_of(page: str, language: str) -> str:
    """Return the first fenced block of a language."""
    return (_DOCS / page).read_text().partition(f"```{language}\n")[2].partition("```")[0]
