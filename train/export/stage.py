"""The export stage: `train/model/` -> `export/` with hf/, a GGUF file, SERVING.md and serving.json."""

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
from ropewalk.train.export.gguf_rope import NotInGguf
from ropewalk.train.export.handoff import Handoff
from ropewalk.train.rope import proof
from ropewalk.train.rope.plan import RopePlan

FORM = 1  # of what is written; a newer one redoes the stage


def run(config: Config, inputs: dict[str, Any], output: Path) -> tuple[Manifest, str]:
    """`inputs`: the fingerprints of the rope plan and the training.

    Raises: ConfigError without the gguf package or for weights that do not fit its type; ProofError when what was written is
    not what was planned.
    """
    run_dir = output.parent
    short_text = measured(run_dir / "eval", inputs)
    decides = {
        "inputs": inputs,
        "export": content(config.export),
        "short_text": short_text and fingerprint(short_text),
        "form": FORM,
    }
    refuse_missing_package(config.export.gguf)

    def work(temporary: Path) -> dict[str, Any]:
        plan = RopePlan.read(run_dir / "rope.json")
        return hand_over(
            run_dir / "train" / "model",
            plan,
            temporary,
            config.name,
            config.export.gguf,
            short_text,
        )

    return run_stage("export", decides, output, work)


def measured(folder: Path, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """What eval found of the very model that is exported; an eval of other settings says nothing of it."""
    done = manifests.read(folder)
    if done is None or any(
        done.content["inputs"].get(stage) != mark for stage, mark in inputs.items()
    ):
        return None
    return handoff.short_text_of(read_json(folder / "results.json"))


def refuse_missing_package(gguf: str) -> None:
    if gguf != "off" and importlib.util.find_spec("gguf") is None:
        raise ConfigError(
            f"export.gguf is {gguf}; it needs one more package; pip install 'ropewalk[gguf]', or set export.gguf=off"
        )


def hand_over(
    model: Path,
    plan: RopePlan,
    output: Path,
    name: str,
    gguf: str,
    short_text: dict[str, Any] | None,
) -> dict[str, Any]:
    """Write everything into `output`. Returns the facts of the manifest. Raises: ProofError, ConfigError."""
    config, old_keys_missing = write_hf(model, output / "hf", plan)
    prove_window(config["max_position_embeddings"], plan)
    print(prove(output / "hf", plan), flush=True)
    file, keys, missing, said = write_gguf(output, plan, gguf, name)
    verdicts = compare.verdicts(plan, config["model_type"], config["max_position_embeddings"])
    if keys is not None:
        verdicts[f"llama.cpp, {file}"] = compare.verdict_of_gguf(plan, keys)
    if old_keys_missing is not None:
        said.append(
            f"hf/config.json has rope_parameters only, no rope_theta and rope_scaling: {old_keys_missing}"
        )
    told = Handoff(
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
        warnings=[*said, *handoff.warnings(verdicts, file)],
    )
    for warning in told.warnings:
        print(f"export warning: {warning}", flush=True)
    (output / "SERVING.md").write_text(serving.document(told), encoding="utf-8")
    write_json(output / "serving.json", handoff.json_of(told))
    same = {engine: verdict.same for engine, verdict in verdicts.items()}
    return {"plan": plan.hash, "gguf": file, "same": same, "warnings": told.warnings}


def write_hf(model: Path, folder: Path, plan: RopePlan) -> tuple[dict[str, Any], str | None]:
    """The checkpoint with config.json in both key styles. Weights are linked, not encoded again.

    Returns config.json, and why it has no older keys where it has none.
    """
    folder.mkdir(parents=True)
    for file in sorted(model.iterdir()):
        place(file, folder / file.name)
    config, reason = config_keys.both(read_json(model / "config.json"))
    write_json(folder / "config.json", config)
    words = folder / "tokenizer_config.json"
    if words.is_file():
        write_json(
            words,
            wide_enough(
                json.loads(words.read_text(encoding="utf-8")), plan.max_position_embeddings
            ),
        )
    return config, reason


def place(source: Path, target: Path) -> None:
    """A second name for the same weights where the disk allows it; small files are copied, for some are changed next."""
    if source.suffix == ".safetensors":
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another disk, or one without links
    shutil.copyfile(source, target)


def wide_enough(tokenizer_config: dict[str, Any], window: int) -> dict[str, Any]:
    """vLLM cuts its window down to the tokenizer's `model_max_length`, which still is the base's."""
    length = tokenizer_config.get("model_max_length")
    return (
        {**tokenizer_config, "model_max_length": window}
        if length and length < window
        else tokenizer_config
    )


def prove_window(written: int, plan: RopePlan) -> None:
    """Servers cut texts at this number, whatever the table can do. Raises: ProofError."""
    dynamic = (
        plan.rope_parameters["rope_type"] == "dynamic"
    )  # counts its growth from the original window
    wanted = plan.original_max_position_embeddings if dynamic else plan.max_position_embeddings
    if written != wanted:
        raise ProofError(
            f"rope proof after export: config.json has max_position_embeddings {written}; the plan has {wanted}"
        )


def prove(folder: Path, plan: RopePlan) -> str:
    """The folder as a reader loads it. Raises: ProofError."""
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype="auto", use_safetensors=True)
    if str(model.dtype) != "torch.float32":
        proof.restore(model, plan)
    return proof.prove(model, plan, "after export")


def write_gguf(
    output: Path, plan: RopePlan, dtype: str, name: str
) -> tuple[str | None, GgufRope | None, str | None, list[str]]:
    """File name, its rotary keys, why there is none, warnings."""
    if dtype == "off":
        return None, None, "export.gguf is off", []
    path = output / f"model-{dtype}.gguf"
    try:
        keys, warnings = gguf_file.write(output / "hf", plan, path, dtype, name)
    except NotInGguf as reason:
        return None, None, str(reason), [f"no GGUF file: {reason}"]
    return path.name, keys, None, warnings
