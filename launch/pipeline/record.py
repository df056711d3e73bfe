"""The run's own `manifest.json`: versions, machine, and the fingerprint of each stage."""

import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ropewalk.conf import phases
from ropewalk.conf.artifacts import manifest as manifests
from ropewalk.conf.artifacts.manifest import Manifest
from ropewalk.conf.artifacts.records import read_signed, signed, write_json
from ropewalk.launch.pipeline.run import Run
from ropewalk.launch.pipeline.versions import versions

FOLDERS = {
    "data": "data",
    "train": "train",
    "eval": "eval",
    "report": "report",
    "calibrate": "calibration",
    "export": "export",
}
"""The folder of each stage that has a manifest of its own."""
READERS = {
    "rope": ("train", "eval", "report", "calibrate", "export"),
    "data": ("train", "eval", "report", "calibrate", "export"),
    "train": ("eval", "report", "export"),
    "eval": ("report",),
    "calibrate": ("report",),
}
"""The stages whose results are made from those of a stage."""


def write_manifest(run: Run) -> None:
    """Write `manifest.json`, unless it is that of a training that stands, undamaged.

    It holds no paths and no user names.
    """
    if run.in_place and read_signed(run.output / "manifest.json") is not None:
        return
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
    write_json(run.output / "manifest.json", signed(manifest))


def _stages(run: Run) -> dict[str, Any]:
    """Fingerprint, seconds and metadata of each stage.

    A stage with the recorded fingerprint keeps its record, and so the seconds of the real work.
    Stages that this command did not run stay recorded unless a stage that they read changed.
    """
    recorded = _recorded_stages(run.output)
    fingerprints = run.fingerprints(*run.manifests)
    changed = [n for n in fingerprints if recorded.get(n, {}).get("fingerprint") != fingerprints[n]]
    outdated = {reader for name in changed if name in recorded for reader in READERS.get(name, ())}
    stages = {name: entry for name, entry in recorded.items() if name not in outdated}
    for name, manifest in run.manifests.items():
        stages[name] = _entry(manifest) if name in changed else recorded[name]
    return stages


def _recorded_stages(folder: Path) -> dict[str, Any]:
    """The stages of the run's manifest; if it is damaged, those that the stages' own tell."""
    path = folder / "manifest.json"
    record = read_signed(path)
    if record is not None:
        return record["stages"]  # type: ignore[no-any-return]
    if not os.path.lexists(path):
        return {}
    print(f"{path} is damaged; written again from the manifests of the stages", flush=True)
    found = {stage: manifests.read(folder / name) for stage, name in FOLDERS.items()}
    return {name: _entry(manifest) for name, manifest in found.items() if manifest}


def _entry(manifest: Manifest) -> dict[str, Any]:
    values = asdict(manifest)
    return {key: values[key] for key in ("fingerprint", "seconds", "facts")}


def _earlier_phases(run: Run) -> list[dict[str, Any]]:
    """The phases before this one, in order: name, folder within the run's, fingerprints."""
    phase = run.previous_phase
    if phase is None:
        return []
    name, stages = phase.config.name, phase.fingerprints(*phase.manifests)
    entry = {"name": name, "folder": f"{phases.FOLDER}/{name}", "stages": stages}
    return [*_earlier_phases(phase), entry]


def machine() -> dict[str, Any]:
    """System, processor, cores and GPUs; nothing that identifies the host."""
    import torch

    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
