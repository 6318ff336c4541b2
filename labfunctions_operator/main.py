"""The command `labfunctions-operator`: reads its configuration, then runs until told to stop."""

import argparse
import asyncio
import logging
import sys
from pathlib import Path

import kopf

from labfunctions_operator.handlers import build_registry
from labfunctions_operator.settings import load_settings
from labfunctions_operator.telemetry import log_as_json

DEFAULT_CONFIG = Path("/etc/labfunctions/config.yaml")
LIVENESS = "http://0.0.0.0:8081/healthz"


def main() -> None:
    """Run the operator."""
    parser = argparse.ArgumentParser(prog="labfunctions-operator", description=main.__doc__)
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="configuration file")
    parser.add_argument("--liveness", default=LIVENESS, help="where the probe is served")
    arguments = parser.parse_args()
    log_as_json(logging.INFO)
    try:
        settings = load_settings(arguments.config)
    except (OSError, ValueError) as error:
        sys.exit(f"labfunctions-operator: {arguments.config}: {error}")
    asyncio.run(
        kopf.operator(
            registry=build_registry(settings),
            clusterwide=True,
            liveness_endpoint=arguments.liveness,
        )
    )


if __name__ == "__main__":
    main()
