"""The command line of the local stack: `python -m devstack VERB`."""

import sys

from devstack.cli import main

sys.exit(main())
