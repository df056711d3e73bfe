"""The report reads artifacts only."""

import subprocess
import sys


def test_the_page_loads_no_stage_and_no_torch() -> None:
    code = (
        "import sys, ropewalk.eval.report.page\n"
        "print([name for name in sys.modules if name.endswith('.stage')"
        " or name in ('torch', 'transformers') or name.startswith('ropewalk.train')])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert output.stdout == "[]\n", output.stdout + output.stderr
