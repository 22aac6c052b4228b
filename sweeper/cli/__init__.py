"""The command line: arguments in; tables, progress and exit codes out.

Exit codes: 0 done; 1 a fault of ours, with a traceback; 2 something the user can mend, in one message; 130 interrupted.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run `sweeper` with the process's arguments."""
    from sweeper.cli.app import app
    from sweeper.cli.console import errors
    from sweeper.errors import SweeperError

    try:
        app(prog_name="sweeper")
    except SweeperError as error:
        errors.print(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
