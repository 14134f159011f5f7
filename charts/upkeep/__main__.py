"""`python -m upkeep`: update the READMEs and schemas of the charts."""

import sys

from upkeep import written

for path, content in written.files().items():
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    sys.stdout.write(f"  {path.relative_to(written.CHARTS.parent)}\n")
