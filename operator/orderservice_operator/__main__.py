"""`python -m orderservice_operator` runs the operator."""

import sys

from orderservice_operator.main import main

sys.exit(main())
