"""`python -m orderservice_operator.orderctl` is `orderctl`."""

import sys

from orderservice_operator.orderctl.main import main

sys.exit(main())
