"""`python -m ropewalk.launch.pipeline.ship [key=value ...]`: ship a run's model as demo base."""

import shutil
import sys
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.manifest import read_json, write_json
from ropewalk.conf.check import load
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rules import content
from ropewalk.launch.config.compose import compose
from ropewalk.launch.pipeline.run import Run
from ropewalk.launch.pipeline.stages import execute
from ropewalk.launch.pipeline.versions import versions
from ropewalk.train.base import BASES


def export_base(run: Run, name: str, target: Path) -> Path:
    """Copy a finished run's model and tokenizer to `target/name`, and add PROVENANCE.json.

    Raises: ConfigError when the run has no model.
    """
    if manifest.finished(run.folder / "train") is None:
        raise ConfigError(
            f"name is {run.config.name}; its train stage is not finished; run it first"
        )
    folder = target / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run.folder / "train" / "model", folder)
    write_json(folder / "PROVENANCE.json", _provenance(run))
    return folder


def _provenance(run: Run) -> dict[str, Any]:
    """Settings, data and results of the run, and of the run whose model it started from."""
    base = Path(run.config.model.path or "").parents[1:2]  # runs/NAME of runs/NAME/train/model
    folders = [folder for folder in (*base, run.folder) if (folder / "config.yaml").is_file()]
    recipes = ", then ".join(f"recipe of run {folder.name}" for folder in folders)
    return {
        "made_by": f"ropewalk; {recipes}",
        "license": "Apache-2.0 (weights); trained on Python's standard library (PSF-2.0) "
        "and synthetic retrieval",
        "parts": [_provenance_of(folder) for folder in folders],
        "versions": versions(),
        "results": read_json(run.folder / "eval" / "results.json")["models"],
    }


def _provenance_of(folder: Path) -> dict[str, Any]:
    """The fingerprinted settings of one run, without paths, and its ledger."""
    trained = manifest.read(folder / "train")
    return {
        "config": content(load(folder / "config.yaml")),
        "ledger": read_json(folder / "data" / "ledger.json"),
        "train": trained and {"fingerprint": trained.fingerprint, "seconds": trained.seconds},
    }


if __name__ == "__main__":
    finished = execute(compose(sys.argv[1:]), "report")
    print(f"wrote {export_base(finished, 'demo', BASES)}")
