"""`python -m orders` is the `orders` command."""

import sys

from orders.cli import main

sys.exit(main())
