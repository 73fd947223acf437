"""Run the command line with ``python -m featviz_pl``."""

import sys

from featviz_pl.cli.main import main

sys.exit(main())
