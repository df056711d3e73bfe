"""The export stage: `train/model/` -> `export/`: hf/, a GGUF file, SERVING.md, serving.json."""

import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM

from ropewalk.conf.artifacts import manifest as manifests
from ropewalk.conf.artifacts.manifest import Manifest, fingerprint, read_json, run_stage, write_json
from ropewalk.conf.errors import ConfigError, ProofError
from ropewalk.conf.rules import content
from ropewalk.conf.schema import Config
from ropewalk.train.export import compare, config_keys, gguf_file, handoff, serving
from ropewalk.train.export.formulas import GgufRope
from ropewalk.train.export.gguf_rope import GgufUnsupported
from ropewalk.train.export.handoff import Handoff
from ropewalk.train.rope import proof
from ropewalk.train.rope.plan import RopePlan

FORM = 1  # version of the written files; a newer one redoes the stage


def run(config: Config, inputs: dict[str, Any], output: Path) -> tuple[Manifest, str]:
    """`inputs`: the fingerprints of the rope plan and the training.

    Raises: ConfigError without the gguf package, or for weights that its type cannot hold;
        ProofError when the written model does not follow the plan.
    """
    run_dir = output.parent
    short_text = short_text_measurement(run_dir / "eval", inputs)
    cache_key = {
        "inputs": inputs,
        "export": content(config.export),
        "short_text": short_text and fingerprint(short_text),
        "form": FORM,
    }
    refuse_missing_package(config.export.gguf)

    def work(temporary: Path) -> dict[str, Any]:
        plan = RopePlan.read(run_dir / "rope.json")
        return export_model(
            run_dir / "train" / "model",
            plan,
            temporary,
            config.name,
            config.export.gguf,
            short_text,
        )

    return run_stage("export", cache_key, output, work)


def short_text_measurement(folder: Path, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """The cost on short text, if eval measured the very model that is exported."""
    evaluated = manifests.read(folder)
    if evaluated is None or any(
        evaluated.content["inputs"].get(stage) != expected for stage, expected in inputs.items()
    ):
        return None
    return handoff.short_text_cost(read_json(folder / "results.json"))


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
    gguf: str,
    short_text: dict[str, Any] | None,
) -> dict[str, Any]:
    """Write everything into `output`. Returns the manifest's metadata.

    Raises: ProofError, ConfigError.
    """
    config, old_keys_missing = write_hf(model, output / "hf", plan)
    prove_window(config["max_position_embeddings"], plan)
    print(prove(output / "hf", plan), flush=True)
    file, keys, missing, warnings = write_gguf(output, plan, gguf, name)
    verdicts = compare.verdicts(plan, config["model_type"], config["max_position_embeddings"])
    if keys is not None:
        verdicts[f"llama.cpp, {file}"] = compare.verdict_of_gguf(plan, keys)
    if old_keys_missing is not None:
        warnings.append(
            "hf/config.json has rope_parameters only, no rope_theta and rope_scaling: "
            f"{old_keys_missing}"
        )
    report = Handoff(
        name=name,
        architecture=config["model_type"],
        plan=plan,
        window=config["max_position_embeddings"],
        verdicts=verdicts,
        old_keys_missing=old_keys_missing,
        gguf_file=file,
        gguf=keys,
        gguf_missing=missing,
        short_text=short_text,
        warnings=[*warnings, *handoff.warnings(verdicts, file)],
    )
    for warning in report.warnings:
        print(f"export warning: {warning}", flush=True)
    (output / "SERVING.md").write_text(serving.document(report), encoding="utf-8")
    write_json(output / "serving.json", handoff.serving_json(report))
    same = {engine: verdict.same for engine, verdict in verdicts.items()}
    return {"plan": plan.hash, "gguf": file, "same": same, "warnings": report.warnings}


def write_hf(model: Path, folder: Path, plan: RopePlan) -> tuple[dict[str, Any], str | None]:
    """Write the checkpoint with config.json in both key styles. Weights are linked, not rewritten.

    Returns config.json, and the reason if it has no legacy keys.
    """
    folder.mkdir(parents=True)
    for file in sorted(model.iterdir()):
        link_or_copy(file, folder / file.name)
    config, reason = config_keys.with_legacy_keys(read_json(model / "config.json"))
    write_json(folder / "config.json", config)
    path = folder / "tokenizer_config.json"
    if path.is_file():
        tokenizer_config = json.loads(path.read_text(encoding="utf-8"))
        write_json(path, with_window(tokenizer_config, plan.max_position_embeddings))
    return config, reason


def link_or_copy(source: Path, target: Path) -> None:
    """Link weights where the disk allows it; copy other files, because some are changed next."""
    if source.suffix == ".safetensors":
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another disk, or a file system without links
    shutil.copyfile(source, target)


def with_window(tokenizer_config: dict[str, Any], window: int) -> dict[str, Any]:
    """Raise the tokenizer's `model_max_length`, still the base's: vLLM cuts its window to it."""
    length = tokenizer_config.get("model_max_length")
    if length and length < window:
        return {**tokenizer_config, "model_max_length": window}
    return tokenizer_config


def prove_window(written: int, plan: RopePlan) -> None:
    """Check max_position_embeddings, at which servers cut texts. Raises: ProofError."""
    # dynamic NTK counts its growth from the original window
    dynamic = plan.rope_parameters["rope_type"] == "dynamic"
    expected = plan.original_max_position_embeddings if dynamic else plan.max_position_embeddings
    if written != expected:
        raise ProofError(
            f"rope proof after export: config.json has max_position_embeddings {written}; "
            f"the plan has {expected}"
        )


def prove(folder: Path, plan: RopePlan) -> str:
    """Prove the plan on the model as a reader loads it. Raises: ProofError."""
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype="auto", use_safetensors=True)
    if str(model.dtype) != "torch.float32":
        proof.restore(model, plan)
    return proof.prove(model, plan, "after export")


def write_gguf(
    output: Path, plan: RopePlan, dtype: str, name: str
) -> tuple[str | None, GgufRope | None, str | None, list[str]]:
    """Returns the file name, its rotary keys, the reason if there is no file, and warnings."""
    if dtype == "off":
        return None, None, "export.gguf is off", []
    path = output / f"model-{dtype}.gguf"
    try:
        keys, warnings = gguf_file.write(output / "hf", plan, path, dtype, name)
    except GgufUnsupported as reason:
        return None, None, str(reason), [f"no GGUF file: {reason}"]
    return path.name, keys, None, warnings
