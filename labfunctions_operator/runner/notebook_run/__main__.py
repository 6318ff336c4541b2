"""Starts the runner: at the top of the zip, and in this package."""

import sys

from labfunctions_operator.runner.notebook_run.main import main

sys.exit(main())
