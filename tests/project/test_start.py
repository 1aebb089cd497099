"""The commands that do not learn start without what learns."""

from __future__ import annotations

import subprocess
import sys


def test_a_command_that_does_not_learn_starts_without_torch() -> None:
    code = "import sys; import desireline.cli.app; print(sorted({'torch', 'numba', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
