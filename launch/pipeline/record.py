""""""

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ropewalk.conf import phases
from ropewalk.conf.artifacts.manifest import read_json, write_json
from ropewalk.launch.pipeline.run import Run

PACKAGES = (
    "ropewalk",
    "torch",
    "transformers",
    "deepspeed",
    "datasets",
    "tokenizers",
    "hydra-core",
    "numpy",
    "pyarrow",
)


def write_manifest(run: Run) -> None:
    """`manifest.json` of the run: versions, machine, and each stage's fingerprint and seconds. No paths, no names."""
    path = run.folder / "manifest.json"
    before = read_json(path).get("stages", {}) if path.is_file() else {}
    changed = any(
        name in before and before[name]["fingerprint"] != said.fingerprint
        for name, said in run.done.items()
    )
    stages = {} if changed else dict(before)  # what a shorter command did not touch still stands
    for name, said in run.done.items():
        facts = {k: v for k, v in asdict(said).items() if k in ("fingerprint", "seconds", "facts")}
        same = before.get(name, {}).get("fingerprint") == said.fingerprint
        stages[name] = before[name] if same else facts
    write_json(
        path,
        {
            "schema": 1,
            "name": run.config.name,
            "command": run.command,
            "versions": versions(),
            "machine": machine(),
            "stages": stages,
            **({"phases": _earlier(run)} if run.before else {}),
        },
    )


def _earlier(run: Run) -> list[dict[str, Any]]:
    """The phases before this one, in order: where each lies in the run's folder, and what its stages were."""
    found, one = list[dict[str, Any]](), run.before
    while one is not None:
        stages = {name: made.fingerprint for name, made in one.done.items()}
        found.insert(
            0,
            {
                "name": one.config.name,
                "folder": f"{phases.FOLDER}/{one.config.name}",
                "stages": stages,
            },
        )
        one = one.before
    return found


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, Any]:
    import os

    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "gpus": gpus,
    }
