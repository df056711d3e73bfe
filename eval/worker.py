"""One rank of the eval stage: it measures its share."""

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from ropewalk.conf import check
from ropewalk.conf.artifacts.disk import disk_error
from ropewalk.conf.artifacts.records import read_json, write_json, write_text
from ropewalk.conf.schema import Config
from ropewalk.eval.measure.evaluate import evaluate
from ropewalk.eval.measure.named import NamedModel
from ropewalk.train.base import Base
from ropewalk.train.launcher import failure
from ropewalk.train.launcher.process import ignore_library_warnings
from ropewalk.train.zero.mesh import end_distributed, start_distributed

JOB = ("job.json", "job.yaml")


@dataclass(frozen=True)
class Job:
    """What the ranks measure, as the command tells them by the files JOB in the stage's folder."""

    config: Config
    base: Base
    run_dir: Path
    named: Mapping[str, NamedModel] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """The models are located once, by the command."""
        where = {name: _place(model.base) for name, model in self.named.items()}
        content = {"run_dir": str(self.run_dir), "base": _place(self.base), "named": where}
        content["verb"] = "models" if self.config.eval.run_models is False else "run"
        write_json(folder / JOB[0], content)
        write_text(folder / JOB[1], check.to_yaml(self.config))

    @classmethod
    def read(cls, folder: Path) -> "Job":
        content = read_json(folder / JOB[0])
        config = check.load(folder / JOB[1], content["verb"])
        named = {
            name: NamedModel(name, config.eval.models[name], _base(place, config))
            for name, place in content["named"].items()
        }
        return cls(config, _base(content["base"], config), Path(content["run_dir"]), named)


def _place(base: Base) -> dict[str, Any]:
    return {
        "path": base.path,
        "revision": base.revision,
        "trust_remote_code": base.trust_remote_code,
        "cache": None if base.cache is None else str(base.cache),
    }


def _base(place: Mapping[str, Any], config: Config) -> Base:
    cache = None if place["cache"] is None else Path(place["cache"])
    scratch = config.model.scratch if place["path"] is None else None
    return Base(**{**place, "cache": cache, "scratch": scratch})


def run(folder: Path) -> None:
    """The process of one rank. An error becomes a message that names the rank, and an exit code."""
    ignore_library_warnings()
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    transformers_logging.disable_progress_bar()
    try:
        job = Job.read(folder)
        start_distributed(job.config.train.launcher.start_timeout_s)
        evaluate(job.config, job.base, job.named, job.run_dir, folder)
        end_distributed()
    except Exception as error:
        sys.exit(failure.report(disk_error(error) or error, folder))
