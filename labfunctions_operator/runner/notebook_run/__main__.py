"""Starts the runner: from where it was copied to, and in the operator's own package."""

import sys

from labfunctions_operator.runner.notebook_run.main import main

sys.exit(main())
