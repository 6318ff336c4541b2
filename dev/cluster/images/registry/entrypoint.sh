#!/bin/sh
# Takes what registry:3 takes: a configuration file to serve, or a subcommand with its arguments.
set -eu
case "${1:-}" in
*.yml | *.yaml) set -- serve "$@" ;;
esac
exec /bin/registry "$@"
