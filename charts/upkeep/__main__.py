"""`python -m upkeep`: write the READMEs and schemas of the charts anew."""

import sys

from upkeep import written

for path, content in written.files().items():
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    sys.stdout.write(f"  {path.relative_to(written.CHARTS.parent)}\n")
