"""The process of a rank, as a launcher starts it: `python -m MODULE FOLDER`."""

import importlib
import sys
from pathlib import Path

from ropewalk.conf.errors import RopewalkError
from ropewalk.train.launcher.environment import take_sent
from ropewalk.train.launcher.process import die_with_parent, gc_paused_imports, without_package
from ropewalk.train.launcher.rank_logs import copy_output


def run(worker: str) -> None:
    """Call `run` of the module `worker` with the folder of the command line.

    Its libraries are imported with the variables that the command sent to this host.
    """
    die_with_parent()
    try:
        take_sent()
    except RopewalkError as error:
        sys.exit(str(error))
    copy_output()
    with gc_paused_imports(), without_package("mlflow"):
        module = importlib.import_module(worker)
    module.run(Path(sys.argv[1]))
