"""`python -m fbft_export`: the same as its command."""

import sys

from fbft_export.cli import main

sys.exit(main())
