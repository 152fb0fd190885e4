"""The command line, `cloudops`: arguments, printing, exit codes.

Prefect costs more than a second to import, so the modules here import it, and whatever imports it,
only inside the functions that talk to the API.
"""

from cloudops_prefect.cli.app import main

__all__ = ["main"]
