"""`python -m fbft_edge` is `fbft-edge`."""

import sys

from fbft_edge.cli import main

sys.exit(main())
