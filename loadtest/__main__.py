"""`python -m loadtest SCENARIO`."""

import sys

from loadtest.cli import main

sys.exit(main())
