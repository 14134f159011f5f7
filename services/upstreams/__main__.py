"""Entry of `python -m upstreams`."""

import sys

from upstreams.main import main

if __name__ == "__main__":
    sys.exit(main())
