"""`python -m timesformer` is the command `timesformer`."""

import sys

from timesformer.cli import main

sys.exit(main())
