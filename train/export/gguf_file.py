"""The trained model as one GGUF file for llama.cpp, written tensor by tensor."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoConfig, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from ropewalk.conf.artifacts.manifest import read_json
from ropewalk.conf.errors import ConfigError
from ropewalk.train.export import gguf_rope, gguf_tokens
from ropewalk.train.export.formulas import GgufRope
from ropewalk.train.export.gguf_rope import ARCHITECTURES, GgufUnsupported
from ropewalk.train.model.geometry import head_dim, sliding_layers
from ropewalk.train.rope.plan import RopePlan

if TYPE_CHECKING:
    from gguf import GGUFWriter

ModelConfig = LlamaConfig | MistralConfig | Qwen2Config | Qwen3Config
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
Tensors = dict[str, tuple[tuple[int, ...], Callable[[], torch.Tensor]]]
"""GGUF name -> shape, and a function that loads the tensor."""


def write(
    folder: Path, plan: RopePlan, path: Path, dtype: str, name: str
) -> tuple[GgufRope, list[str]]:
    """Write `path` from a Hugging Face folder. Returns the rotary keys written, and warnings.

    Raises: GgufUnsupported, with the reason, before anything is written; ConfigError for a weight
        that `dtype` cannot hold.
    """
    from gguf import GGUFWriter

    if "auto_map" in read_json(folder / "config.json"):
        raise GgufUnsupported("its architecture is code of its own, which llama.cpp does not run")
    config = AutoConfig.from_pretrained(str(folder))
    architecture = architecture_of(config, plan)
    rope = gguf_rope.rope_keys(plan, architecture)
    tensors = gguf_tensors(folder, config, architecture)
    writer = GGUFWriter(path, architecture)
    writer.add_name(name)
    add_shape(writer, config, plan, dtype)
    add_rope(writer, config, rope, plan)
    rows = tensors["token_embd.weight"][0][0]
    writer.add_vocab_size(rows)
    warnings = gguf_tokens.add_tokenizer(writer, folder, rows)
    if rope.rope_freqs is not None:
        freqs = torch.from_numpy(rope.rope_freqs)
        tensors["rope_freqs.weight"] = (tuple(freqs.shape), lambda: freqs)
    write_tensors(writer, tensors, dtype)
    return rope, warnings


def architecture_of(config: ModelConfig, plan: RopePlan) -> str:
    """llama.cpp's name of the architecture.

    Raises: GgufUnsupported for a model that llama.cpp or this writer does not support.
    """
    kind = str(config.model_type)
    if kind not in ARCHITECTURES:
        raise GgufUnsupported(f"its architecture {kind} is not one of {', '.join(ARCHITECTURES)}")
    if any(sliding_layers(config)):
        raise GgufUnsupported(f"its architecture {kind} has sliding-window layers")
    if config.hidden_act != "silu":
        raise GgufUnsupported(f"its hidden_act is {config.hidden_act}; llama.cpp's {kind} has silu")
    if 2 * len(plan.inv_freq) != head_dim(config):
        raise GgufUnsupported("it rotates a part of each head only")
    return ARCHITECTURES[kind]


def add_shape(writer: "GGUFWriter", config: ModelConfig, plan: RopePlan, dtype: str) -> None:
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    kinds = {
        "f32": LlamaFileType.ALL_F32,
        "f16": LlamaFileType.MOSTLY_F16,
        "bf16": LlamaFileType.MOSTLY_BF16,
    }
    writer.add_file_type(kinds[dtype])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_context_length(plan.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads or config.num_attention_heads)
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def add_rope(writer: "GGUFWriter", config: ModelConfig, rope: GgufRope, plan: RopePlan) -> None:
    """llama.cpp reads the original window with YaRN only; with it the file can be a base again."""
    from gguf import RopeScalingType

    writer.add_rope_dimension_count(head_dim(config))
    writer.add_rope_freq_base(rope.freq_base)
    writer.add_rope_scaling_type(RopeScalingType(rope.scaling))
    if rope.scaling != "none":
        writer.add_rope_scaling_factor(rope.factor)
    if plan.rope_parameters["rope_type"] != "default":
        writer.add_rope_scaling_orig_ctx_len(plan.original_max_position_embeddings)
    if rope.attn_factor != 1.0:
        writer.add_rope_scaling_attn_factors(rope.attn_factor)


def gguf_tensors(folder: Path, config: ModelConfig, architecture: str) -> Tensors:
    """Tensors by GGUF name, none loaded yet.

    Raises: GgufUnsupported for a weight that the architecture lacks.
    """
    from gguf import MODEL_ARCH, get_tensor_name_map

    known = get_tensor_name_map(MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    num_heads = config.num_attention_heads
    heads = {"q_proj": num_heads, "k_proj": config.num_key_value_heads or num_heads}
    tensors: Tensors = {}
    for name, shape, get in iter_weights(folder):
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        gguf_name = known.get_name(name, try_suffixes=(".weight", ".bias"))
        if gguf_name is None:
            raise GgufUnsupported(f"its weight {name} has no place in llama.cpp's {architecture}")
        part = name.split(".")[-2]
        permute = architecture == "llama" and part in heads
        tensors[gguf_name] = (shape, permute_heads(get, heads[part]) if permute else get)
    return tensors


def permute_heads(get: Callable[[], torch.Tensor], heads: int) -> Callable[[], torch.Tensor]:
    """Reorder the rows of each head for llama.cpp.

    Its llama rotates neighbouring rows, transformers the two halves of a head. Its qwen2 and qwen3
    rotate halves too and need no permutation.
    """

    def permuted() -> torch.Tensor:
        weight = get()
        halves = weight.reshape(heads, 2, -1, *weight.shape[1:])
        return halves.transpose(1, 2).reshape(weight.shape)

    return permuted


def iter_weights(folder: Path) -> Iterator[tuple[str, tuple[int, ...], Callable[[], torch.Tensor]]]:
    """Name, shape and loader of every tensor in the folder's safetensors files."""
    for file in sorted(folder.glob("*.safetensors")):
        opened = safe_open(str(file), framework="pt")
        for name in opened.keys():  # noqa: SIM118  not a dict
            yield name, tuple(opened.get_slice(name).get_shape()), partial(opened.get_tensor, name)


def write_tensors(writer: "GGUFWriter", tensors: Tensors, dtype: str) -> None:
    """Write one tensor at a time; vectors (norms, biases, rope_freqs) in float32 for llama.cpp."""
    from gguf import GGMLQuantizationType

    dtypes = {name: "f32" if len(shape) == 1 else dtype for name, (shape, _) in tensors.items()}
    for name, (shape, _) in tensors.items():
        kind = GGMLQuantizationType[dtypes[name].upper()]
        file_dtype = np.dtype(np.float32 if dtypes[name] == "f32" else np.int16)
        size = math.prod(shape) * file_dtype.itemsize
        writer.add_tensor_info(name, shape, file_dtype, size, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, (_, get) in tensors.items():
        writer.write_tensor_data(encode(name, get(), dtypes[name]))
    writer.close()


def encode(name: str, tensor: torch.Tensor, dtype: str) -> np.ndarray:
    """The tensor as GGUF stores it: float32, or the bits of a 16-bit type.

    Raises: ConfigError for a weight that `dtype` cannot hold.
    """
    cast = tensor.to(DTYPES[dtype]).contiguous()
    if not bool(torch.isfinite(cast).all()):
        raise ConfigError(
            f"export.gguf is {dtype}; {name} has weights that it cannot hold; "
            "set export.gguf=bf16 or f32"
        )
    array: np.ndarray = (cast if dtype == "f32" else cast.view(torch.int16)).numpy()
    return array
