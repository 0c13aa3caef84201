"""`python -m tlbench` is `tlbench`."""

import sys

from tlbench.cli import main

sys.exit(main())
