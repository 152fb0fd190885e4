"""The flow that a deployment runs for a single command."""

from cloudops_prefect.flows import run_command

__all__ = ["run_command"]
