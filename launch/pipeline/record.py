"""The run's own `manifest.json`: versions, machine, and the fingerprint of each stage."""

import os
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
    """Write `manifest.json`. It holds no paths and no user names."""
    manifest = {
        "schema": 1,
        "name": run.config.name,
        "command": run.command,
        "versions": versions(),
        "machine": machine(),
        "stages": _stages(run),
    }
    if run.previous_phase:
        manifest["phases"] = _earlier_phases(run)
    write_json(run.folder / "manifest.json", manifest)


def _stages(run: Run) -> dict[str, Any]:
    """Fingerprint, seconds and metadata of each stage.

    A stage with the recorded fingerprint keeps its record, and so the seconds of the real work.
    Stages that this command did not run stay recorded unless a stage before them changed.
    """
    path = run.folder / "manifest.json"
    recorded = read_json(path).get("stages", {}) if path.is_file() else {}
    fingerprints = run.fingerprints(*run.manifests)
    changed = [n for n in fingerprints if recorded.get(n, {}).get("fingerprint") != fingerprints[n]]
    stages = {} if any(name in recorded for name in changed) else dict(recorded)
    for name, manifest in run.manifests.items():
        values = asdict(manifest)
        fresh = {key: values[key] for key in ("fingerprint", "seconds", "facts")}
        stages[name] = fresh if name in changed else recorded[name]
    return stages


def _earlier_phases(run: Run) -> list[dict[str, Any]]:
    """The phases before this one, in order: name, folder within the run's, fingerprints."""
    phase = run.previous_phase
    if phase is None:
        return []
    name, stages = phase.config.name, phase.fingerprints(*phase.manifests)
    entry = {"name": name, "folder": f"{phases.FOLDER}/{name}", "stages": stages}
    return [*_earlier_phases(phase), entry]


def versions() -> dict[str, str]:
    """Installed versions of Python and of the packages that affect results."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = "not installed"
    return installed


def machine() -> dict[str, Any]:
    """System, processor, cores and GPUs; nothing that identifies the host."""
    import torch

    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
