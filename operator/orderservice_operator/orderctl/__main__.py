"""The command line `python -m orderservice_operator.orderctl`."""

import sys

from orderservice_operator.orderctl.main import main

sys.exit(main())
