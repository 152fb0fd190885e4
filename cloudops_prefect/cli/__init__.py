"""The command line, `cloudops`: arguments, printing, exit codes.

Prefect costs more than a second to import, so the modules here import it, and whatever imports it,
only inside the functions that talk to the API.
"""

import gc
import sys

from cloudops_prefect.cli import exit_codes, standard_streams


def main() -> None:
    """Runs what the command line says and exits with the code that says how it went."""
    # What imports make stays: collecting among it takes a fifth of their time.
    gc.disable()
    # Before anything is opened or keeps a stream.
    standard_streams.make_lasting()
    try:
        from cloudops_prefect.cli.app import main as run

        run()
    except KeyboardInterrupt:
        # Of the imports, or of an answer to another one.
        sys.exit(exit_codes.CANCELLED)
