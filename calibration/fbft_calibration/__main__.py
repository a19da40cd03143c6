"""`python -m fbft_calibration`: the same as its command."""

import sys

from fbft_calibration.cli import main

sys.exit(main())
