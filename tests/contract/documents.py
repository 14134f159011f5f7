"""Write the OpenAPI document, with tokens and without, for tools that read files."""

import sys
from pathlib import Path

from contract.serverless_api import client


def main(folder: Path) -> None:
    """Write `open.json` and `tokens.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, tokens in {"open": False, "tokens": True}.items():
        answer = client(tokens=tokens, key_required=tokens).simulate_get("/openapi.json")
        (folder / f"{name}.json").write_bytes(answer.content)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
