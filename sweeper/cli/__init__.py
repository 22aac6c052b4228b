"""The command line: arguments in; tables, progress and exit codes out.

Whatever is printed of an error has its credentials masked, in case a library's words hold a URL as it was given.

Exit codes: 0 done; 1 a fault of ours, with a traceback, or a problem that `doctor` found; 2 something the user can
mend, in one message; 130 interrupted.
"""

from __future__ import annotations

import sys
import traceback


def main() -> None:
    """Run `sweeper` with the process's arguments."""
    from sweeper.cli.app import app
    from sweeper.cli.console import errors
    from sweeper.errors import SweeperError
    from sweeper.urls import masked

    try:
        app(prog_name="sweeper")
    except SweeperError as error:
        errors.print(f"error: {masked(str(error))}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        errors.print(masked(traceback.format_exc()), end="")
        sys.exit(1)
