"""A GGUF file as a Hugging Face folder in the cache: converted once, known by its content."""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedConfig, PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
)

from ropewalk.conf.artifacts.digests import file_digests
from ropewalk.conf.artifacts.manifest import fingerprint, run_shared
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.log import log
from ropewalk.train.gguf_base import header as headers
from ropewalk.train.gguf_base import shape, tokenizer
from ropewalk.train.gguf_base.header import Header

FORM = 3  # raise when the same file gives another folder


def folder_of(file: Path, cache: Path) -> str:
    """The folder of `file`, converted if it is not there.

    Raises: ConfigError for a file that cannot be read in full, or when a package is missing.
    """
    if not file.is_file():
        why = "it is a folder" if file.is_dir() else "no such file in model.path"
        raise ConfigError(f"model.gguf_file is {file.name}; {why}; give the name of a GGUF file")
    if any(importlib.util.find_spec(package) is None for package in ("gguf", "accelerate")):
        raise ConfigError(
            f"{file.name} is GGUF; it needs two more packages; pip install 'ropewalk[gguf]'"
        )
    digest = file_digests(file.parent, [file.name], cache).get(file.name)
    if digest is None:
        raise ConfigError(f"{file.name} cannot be read; it must be a GGUF file; correct its rights")
    cache_key = {"sha256": digest, "form": FORM}
    folder = cache / "models" / f"{file.stem}-{fingerprint(cache_key)[:12]}"

    def work(temporary: Path) -> dict[str, Any]:
        convert(file, temporary)
        return {}

    _, message = run_shared(f"model {file.stem}", cache_key, folder, work)
    if "skipped" not in message:
        log.info(message)
    return str(folder)


def convert(file: Path, folder: Path) -> None:
    """Write the file's model and tokenizer to `folder`, in float32. Raises: ConfigError."""
    log.info(f"dequantise {file.name} (about half a minute, once)")
    header = headers.read(file)
    config = shape.config_of(file, header)
    words = tokenizer.tokenizer_of(file, header)
    refuse_other_tensors(header, config)
    model: PreTrainedModel
    loaded: dict[str, Any]
    model, loaded = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
        str(file.parent),
        gguf_file=file.name,
        config=config,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
        output_loading_info=True,
    )
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(map(str, loaded[what])):
            raise header.refusal(names[0], what.replace("_keys", ""), "its weights must be whole")
    words.save_pretrained(str(folder))
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(str(folder))


def refuse_other_tensors(header: Header, config: PreTrainedConfig) -> None:
    """Hold the file's tensors against those of the architecture, which transformers does not.

    Raises: ConfigError for one that the file lacks, or that the model has no place for.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    processor = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)(config=vars(config))
    places = get_gguf_hf_weights_map(model, processor)
    stored = shape.model_tensors(header)
    if extra := [name for name in stored if name not in places]:
        rule = f"{header.architecture} as transformers has it has no place for it"
        raise header.refusal(extra[0], f"there, and {len(extra) - 1} more", rule)
    tied = ["output.weight"] if config.tie_word_embeddings else []
    if missing := [name for name in places if name not in (*stored, *tied)]:
        rule = "every weight must be in the file"
        raise header.refusal(missing[0], f"missing, and {len(missing) - 1} more", rule)
