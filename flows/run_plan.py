"""The flow that a deployment runs for a plan."""

from cloudops_prefect.flows import run_plan

__all__ = ["run_plan"]
