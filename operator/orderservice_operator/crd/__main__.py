"""Write the committed CustomResourceDefinition anew, or print it with `--stdout`."""

import sys

from orderservice_operator.crd import definition

if __name__ == "__main__":
    if "--stdout" in sys.argv:
        sys.stdout.write(definition.text())
    else:
        definition.FILE.write_text(definition.text(), encoding="utf-8")
