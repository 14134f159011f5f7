"""`python -m orderservice_operator` runs the operator."""

import sys

from orderservice_operator.control.main import main

sys.exit(main())
