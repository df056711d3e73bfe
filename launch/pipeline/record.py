"""The run's own `manifest.json`: all that decides its numbers, and what they are.

docs/reproduce.md lists its keys. `environments` are named by a digest; each stage names the one
that made it, which an older version or another machine may have been.
"""

import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ropewalk.conf import phases
from ropewalk.conf.artifacts import manifest as manifests
from ropewalk.conf.artifacts.manifest import Manifest
from ropewalk.conf.artifacts.records import fingerprint, read_signed, signed, write_json
from ropewalk.launch.pipeline.order import FOLDERS
from ropewalk.launch.pipeline.run import Run
from ropewalk.launch.pipeline.versions import versions
from ropewalk.launch.reproduce import environment, inputs, results, settings
from ropewalk.launch.reproduce.evidence import SCHEMA


def write_manifest(run: Run) -> None:
    """Write `manifest.json`; a look adds no stages to that of a training that stands.

    It holds no paths and no user names.
    """
    path = run.output / "manifest.json"
    former = _former(run.output)
    record = former if run.in_place else None
    if record is not None and not run.adds_stages:
        return
    content = record or _new_record(run)
    stages, environments = _stages(run, former), _environments(former)
    used = {content.get("environment"), *(entry.get("environment") for entry in stages.values())}
    content = content | {
        "environments": {name: environments[name] for name in environments if name in used},
        "results": results.results(run.output, run.cache),
        "values": results.values(run.output),
        "stages": stages,
    }
    complete = signed(content)
    if complete != former:
        write_json(path, complete)


def _new_record(run: Run) -> dict[str, Any]:
    kept = settings.recorded(run.settings)
    record = {
        "schema": SCHEMA,
        "name": run.config.name,
        "command": run.command,
        "versions": versions(),
        "machine": machine(),
        "environment": _present(),
        "settings": kept,
        "left_out": settings.left_out(run.settings, kept),
        "seeds": environment.seeds(run.config),
        "mesh": environment.mesh(run.config),
        "inputs": inputs.inputs(run, with_base=not {"train", "eval"}.isdisjoint(run.manifests)),
    }
    return record | ({"phases": _earlier_phases(run)} if run.previous_phase else {})


def _present() -> str:
    """The name of this process's environment."""
    return fingerprint(environment.binding())[:16]


def _environments(former: dict[str, Any] | None) -> dict[str, Any]:
    known: dict[str, Any] = (former or {}).get("environments", {})
    return {**known, _present(): environment.binding()}


def _stages(run: Run, former: dict[str, Any] | None) -> dict[str, Any]:
    """Fingerprint, seconds, metadata and environment of each stage.

    A stage that was skipped keeps its record, and so the seconds and the environment of the real
    work. Stages that this command did not run are those of the run's folder that stand on the
    others.
    """
    recorded: dict[str, Any] = (former or {}).get("stages", {})
    stages = {name: entry for name, entry in recorded.items() if name not in FOLDERS}
    stages |= {
        name: recorded[name] if _is_of(recorded.get(name), manifest) else _made_now(run, manifest)
        for name, manifest in run.manifests.items()
    }
    for name, folder in FOLDERS.items():
        manifest = manifests.read(run.output / folder)
        if name not in stages and manifest and _stands_on(manifest, stages):
            is_known = _is_of(recorded.get(name), manifest)
            stages[name] = recorded[name] if is_known else _entry(manifest)
    return stages


def _is_of(entry: dict[str, Any] | None, manifest: Manifest) -> bool:
    """Whether a recorded entry is of this very result. Work that was done again, with the same
    fingerprint, took other seconds."""
    return entry is not None and (entry["fingerprint"], entry["seconds"]) == (
        manifest.fingerprint,
        manifest.seconds,
    )


def _made_now(run: Run, manifest: Manifest) -> dict[str, Any]:
    """With this environment, if this command did the work; else it is not known."""
    is_made = manifest.stage in run.made
    return _entry(manifest) | ({"environment": _present()} if is_made else {})


def _stands_on(manifest: Manifest, stages: dict[str, Any]) -> bool:
    """Whether a stage was made from those that are recorded."""
    inputs = manifest.content.get("inputs", {})
    return all(
        stages.get(name, {}).get("fingerprint", made) == made for name, made in inputs.items()
    )


def _former(folder: Path) -> dict[str, Any] | None:
    """The run's manifest as it stands; None if there is none, or it is damaged."""
    path = folder / "manifest.json"
    record = read_signed(path)
    if record is None and os.path.lexists(path):
        print(f"{path} is damaged; written again from the manifests of the stages", flush=True)
    return record


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
