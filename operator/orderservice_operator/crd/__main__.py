"""Write the committed CustomResourceDefinition anew.

`--stdout` prints it instead; `--reference FILE` writes the table of fields in a document anew.
"""

import argparse
import sys
from pathlib import Path

from orderservice_operator.crd import definition, reference


def main() -> None:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m orderservice_operator.crd")
    parser.add_argument("--stdout", action="store_true")
    parser.add_argument("--reference", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.stdout:
        sys.stdout.write(definition.text())
    elif options.reference:
        text = options.reference.read_text(encoding="utf-8")
        options.reference.write_text(reference.with_fields(text), encoding="utf-8")
    else:
        definition.FILE.write_text(definition.text(), encoding="utf-8")


if __name__ == "__main__":
    main()
