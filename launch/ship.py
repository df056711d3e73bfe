"""`python -m ropewalk.launch.ship [key=value ...]`: keep a finished run's model as the builtin base of the demo."""

import sys

from ropewalk.launch.compose import compose
from ropewalk.launch.stages import execute, export_base
from ropewalk.train.model import BASES

if __name__ == "__main__":
    finished = execute(compose(sys.argv[1:]), "report")
    print(f"wrote {export_base(finished, 'demo', BASES)}")
