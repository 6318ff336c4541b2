"""Lets `python -m labfunctions_operator` run the operator."""

from labfunctions_operator.main import main

main()
