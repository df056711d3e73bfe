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
from ropewalk.launch.pipeline.order import FOLDERS
from ropewalk.launch.pipeline.run import Run
from ropewalk.launch.pipeline.versions import versions


def write_manifest(run: Run) -> None:
    """Write `manifest.json`; a look adds no stages to that of a training that stands.

    It holds no paths and no user names.
    """
    path = run.output / "manifest.json"
    record = read_signed(path) if run.in_place else None
    if record is not None and not run.adds_stages:
        return
    complete = signed((record or _new_record(run)) | {"stages": _stages(run)})
    if complete != record:
        write_json(path, complete)


def _new_record(run: Run) -> dict[str, Any]:
    record = {
        "schema": 1,
        "name": run.config.name,
        "command": run.command,
        "versions": versions(),
        "machine": machine(),
        "stages": {},
    }
    return record | ({"phases": _earlier_phases(run)} if run.previous_phase else {})


def _stages(run: Run) -> dict[str, Any]:
    """Fingerprint, seconds and metadata of each stage.

    A stage with the recorded fingerprint keeps its record, and so the seconds of the real work.
    Stages that this command did not run are those of the run's folder that stand on the others.
    """
    recorded = _recorded_stages(run.output)
    stages = {name: entry for name, entry in recorded.items() if name not in FOLDERS}
    stages |= {
        name: recorded[name]
        if recorded.get(name, {}).get("fingerprint") == manifest.fingerprint
        else _entry(manifest)
        for name, manifest in run.manifests.items()
    }
    for name, folder in FOLDERS.items():
        manifest = manifests.read(run.output / folder)
        if name not in stages and manifest and _stands_on(manifest, stages):
            stages[name] = _entry(manifest)
    return stages


def _stands_on(manifest: Manifest, stages: dict[str, Any]) -> bool:
    """Whether a stage was made from those that are recorded."""
    inputs = manifest.content.get("inputs", {})
    return all(
        stages.get(name, {}).get("fingerprint", made) == made for name, made in inputs.items()
    )


def _recorded_stages(folder: Path) -> dict[str, Any]:
    """The stages of the run's manifest; none if it is damaged."""
    path = folder / "manifest.json"
    record = read_signed(path)
    if record is not None:
        return record["stages"]  # type: ignore[no-any-return]
    if os.path.lexists(path):
        print(f"{path} is damaged; written again from the manifests of the stages", flush=True)
    return {}


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
