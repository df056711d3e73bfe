"""One rank of the eval stage: it measures its share."""

import logging
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

from transformers.utils import logging as transformers_logging

from ropewalk.conf.artifacts.disk import disk_error
from ropewalk.conf.schema import Config
from ropewalk.eval.measure.evaluate import evaluate
from ropewalk.train.base import Base
from ropewalk.train.launcher import failure
from ropewalk.train.launcher.process import ignore_library_warnings
from ropewalk.train.zero.mesh import end_distributed, start_distributed

JOB = "job.pickle"


@dataclass(frozen=True)
class Job:
    """What the ranks measure, as the command tells them in JOB of the stage's folder."""

    config: Config
    base: Base
    run_dir: Path


def run(folder: Path) -> None:
    """The process of one rank. An error becomes a message that names the rank, and an exit code."""
    ignore_library_warnings()
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    transformers_logging.disable_progress_bar()
    try:
        job: Job = pickle.loads((folder / JOB).read_bytes())
        start_distributed(job.config.train.launcher.start_timeout_s)
        evaluate(job.config, job.base, job.run_dir, folder)
        end_distributed()
    except Exception as error:
        sys.exit(failure.report(disk_error(error) or error, folder))
