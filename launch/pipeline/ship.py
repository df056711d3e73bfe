"""`python -m ropewalk.launch.pipeline.ship [key=value ...]`: keep a finished run's model as the builtin base of the demo."""

import shutil
import sys
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.manifest import read_json, write_json
from ropewalk.conf.check import load
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import content
from ropewalk.launch.config.compose import compose
from ropewalk.launch.pipeline.record import versions
from ropewalk.launch.pipeline.run import Run
from ropewalk.launch.pipeline.stages import execute
from ropewalk.train.base import BASES


def export_base(run: Run, name: str, target: Path) -> Path:
    """Keep a finished run's model as a base that ropewalk ships: model, tokenizer and PROVENANCE.json.

    Raises: ConfigError when the run has no model.
    """
    source = run.folder / "train" / "model"
    if manifest.read(run.folder / "train") is None:
        raise ConfigError(
            f"name is {run.config.name}; its train stage is not finished; run it first"
        )
    folder = target / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    before = Path(run.config.model.path or "").parents[1:2]  # runs/NAME of runs/NAME/train/model
    parts = [part for part in (*before, run.folder) if (part / "config.yaml").is_file()]
    provenance = {
        "made_by": "ropewalk; " + ", then ".join(f"recipe of run {part.name}" for part in parts),
        "license": "Apache-2.0 (weights); trained on Python's standard library (PSF-2.0) and synthetic retrieval",
        "parts": [_provenance(part) for part in parts],
        "versions": versions(),
        "results": read_json(run.folder / "eval" / "results.json")["models"],
    }
    write_json(folder / "PROVENANCE.json", provenance)
    return folder


def _provenance(folder: Path) -> dict[str, Any]:
    """What decided a run, without its places, and where its tokens came from."""
    trained = manifest.read(folder / "train")
    return {
        "config": content(load(folder / "config.yaml")),
        "ledger": read_json(folder / "data" / "ledger.json"),
        "train": trained and {"fingerprint": trained.fingerprint, "seconds": trained.seconds},
    }


if __name__ == "__main__":
    finished = execute(compose(sys.argv[1:]), "report")
    print(f"wrote {export_base(finished, 'demo', BASES)}")
