"""The process pool: a script without a guard may use it."""

import subprocess
import sys

SCRIPT = """
from desireline.core.processes import process_pool
print("begun")
with process_pool(2) as pool:
    print(sorted(pool.map(abs, [-3, 2])))
"""


def test_a_script_without_a_main_guard_is_not_run_again(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n")[:2] == ["begun", "[2, 3]"]
