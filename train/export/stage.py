"""The export stage: `train/model/` -> `export/`: hf/, a GGUF file, SERVING.md, serving.json."""

import importlib.util
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts import manifest as manifests
from ropewalk.conf.artifacts.manifest import Manifest, fingerprint, read_json, run_stage, write_json
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rules import content
from ropewalk.conf.schema import Config
from ropewalk.train.export import (
    benchmarks,
    compare,
    gguf_file,
    handoff,
    hf_folder,
    model_card,
    push,
    serving,
)
from ropewalk.train.export.gguf_rope import GgufUnsupported
from ropewalk.train.export.handoff import GgufExport, Handoff
from ropewalk.train.rope.plan import RopePlan

FORM = 4  # version of the written files; a newer one redoes the stage


def run(config: Config, inputs: dict[str, Any], output: Path) -> tuple[Manifest, str]:
    """`inputs`: the fingerprints of the rope plan and the training. With `export.push` the folder
    hf/ is pushed, whether it was written now or before.

    Raises: ConfigError without the gguf package, or for weights that its type cannot hold;
        ProofError when the written model does not follow the plan.
    """
    run_dir = output.parent
    results = measured_results(run_dir / "eval", inputs)
    short_text = results and handoff.short_text_cost(results)
    cache_key = {
        "inputs": inputs,
        "export": content(config.export),
        "results": results and fingerprint(results),
        "form": FORM,
    }
    refuse_missing_package(config.export.gguf)

    def work(temporary: Path) -> dict[str, Any]:
        model, plan = run_dir / "train" / "model", RopePlan.read(run_dir / "rope.json")
        facts = export_model(
            model,
            plan,
            temporary,
            config.name,
            config.export.gguf,
            short_text,
            config.model.trust_remote_code,
        )
        base = Path(config.model.path).expanduser() if config.model.path else None
        folder = base if base is not None and base.is_dir() else None
        origin = model_card.origin_of(config, run_dir, folder, temporary / "SERVING.md")
        write_card(temporary / "hf", config, plan, origin, results)
        return facts

    if config.export.push:
        push.refuse(config.export.push, config.export.private)
    manifest, message = run_stage("export", cache_key, output, work)
    if config.export.push:
        message += f"\n{push.push(output / 'hf', config.export.push, config.export.private)}"
    return manifest, message


def write_card(
    folder: Path,
    config: Config,
    plan: RopePlan,
    origin: model_card.Origin,
    results: dict[str, Any] | None,
) -> None:
    """README.md, the run's manifest, and the results of registered benchmarks."""
    model_card.write(folder, model_card.card(config.name, plan, origin, results))
    if origin.record:
        write_json(folder / model_card.RECORD, model_card.public_record(origin.record))
    entries = benchmarks.entries(results or {}, config.export.benchmarks, model_card.COLUMN)
    benchmarks.write(folder, entries)


def measured_results(folder: Path, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """The results of the evaluation, if it measured the very model that is exported."""
    evaluated = manifests.finished(folder)
    if evaluated is None or not inputs.items() <= evaluated.content["inputs"].items():
        return None
    return read_json(folder / "results.json")


def refuse_missing_package(gguf: str) -> None:
    """Raises: ConfigError when a GGUF file is wanted and the package gguf is missing."""
    if gguf != "off" and importlib.util.find_spec("gguf") is None:
        raise ConfigError(
            f"export.gguf is {gguf}; it needs one more package; "
            "pip install 'ropewalk[gguf]', or set export.gguf=off"
        )


def export_model(
    model: Path,
    plan: RopePlan,
    output: Path,
    name: str,
    dtype: str,
    short_text: dict[str, Any] | None,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Write everything into `output`. Returns the manifest's metadata.

    `dtype`: of the GGUF file. `trust_remote_code`: run the model's own code to prove the export.
    Raises: ProofError, ConfigError.
    """
    architecture, missing = hf_folder.write(model, output / "hf", plan)
    print(hf_folder.prove(output / "hf", plan, trust_remote_code), flush=True)
    gguf = write_gguf(output, plan, dtype, name)
    verdicts = compare.verdicts(plan, architecture)
    if gguf.keys is not None:
        verdicts[f"llama.cpp, {gguf.file}"] = compare.verdict_of_gguf(plan, gguf.keys)
    report = Handoff(name, architecture, plan, verdicts, missing, gguf, short_text)
    for warning in report.warnings:
        print(f"export warning: {warning}", flush=True)
    (output / "SERVING.md").write_text(serving.document(report), encoding="utf-8")
    write_json(output / "serving.json", report.json())
    same = {engine: verdict.same for engine, verdict in verdicts.items()}
    return {"plan": plan.hash, "gguf": gguf.file, "same": same, "warnings": report.warnings}


def write_gguf(output: Path, plan: RopePlan, dtype: str, name: str) -> GgufExport:
    if dtype == "off":
        return GgufExport(missing="export.gguf is off")
    path = output / f"model-{dtype}.gguf"
    try:
        keys, warnings = gguf_file.write(output / "hf", plan, path, dtype, name)
    except GgufUnsupported as reason:
        return GgufExport(missing=str(reason), warnings=(f"no GGUF file: {reason}",))
    return GgufExport(path.name, keys, warnings=tuple(warnings))
