"""The command `desireline`. Each command parses, calls the API and prints.

Answers go to stdout, as JSON with `--json`; bars, notes and errors go to stderr. Status 0: done; 1: an error of the
user's, in one message; 2: wrong usage.
"""

from __future__ import annotations

import os
import signal
import sys

from desireline.cli import ask, decide, demo, learn, log, risk
from desireline.cli.shared import app
from desireline.core.errors import DesirelineError

COMMANDS = (demo, log, learn, ask, decide, risk)  # importing them registers their commands


def main() -> None:
    """Run the command line; the only place where an error becomes a message and a status."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        app()
    except DesirelineError as error:
        _fail(str(error))
    except MemoryError:
        _fail("The machine has no memory left for this. Close other programs, or use a smaller log or catalogue.")
    except KeyboardInterrupt:
        sys.stderr.write("Stopped. What was stored is whole; run the same command to go on.\n")
        os._exit(130)


def _fail(message: str) -> None:
    sys.stderr.write(f"Error: {message}\n")
    raise SystemExit(1)
