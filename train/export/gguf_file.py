"""The trained model as one GGUF file for llama.cpp, written tensor by tensor."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.train.export import gguf_rope, gguf_tokens
from ropewalk.train.export.formulas import GgufRope
from ropewalk.train.export.gguf_rope import ARCHITECTURES, NotInGguf
from ropewalk.train.model.geometry import head_dim, sliding_layers
from ropewalk.train.rope.plan import RopePlan

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
Tensors = dict[
    str, tuple[tuple[int, ...], Callable[[], torch.Tensor]]
]  # GGUF name -> shape, how to get it


def write(
    folder: Path, plan: RopePlan, path: Path, dtype: str, name: str
) -> tuple[GgufRope, list[str]]:
    """Write `path` from a Hugging Face folder. Returns the rotary keys written, and warnings.

    Raises: NotInGguf, with the reason, before anything is written; ConfigError for a weight that `dtype` cannot hold.
    """
    from gguf import GGUFWriter

    config = AutoConfig.from_pretrained(str(folder))
    architecture = admitted(config, plan)
    rope = gguf_rope.keys(plan, architecture)
    found = tensors(folder, config, architecture)
    writer = GGUFWriter(path, architecture)
    writer.add_name(name)
    add_shape(writer, config, plan, dtype)
    add_rope(writer, config, rope)
    rows = found["token_embd.weight"][0][0]
    writer.add_vocab_size(rows)
    warnings = gguf_tokens.add(writer, folder, rows)
    if rope.rope_freqs is not None:
        freqs = torch.from_numpy(rope.rope_freqs)
        found["rope_freqs.weight"] = (tuple(freqs.shape), lambda: freqs)
    stream(writer, found, dtype)
    return rope, warnings


def admitted(config: PreTrainedConfig, plan: RopePlan) -> str:
    """llama.cpp's name of the architecture. Raises: NotInGguf for a model that it, or this writer, does not hold."""
    kind = str(config.model_type)
    if kind not in ARCHITECTURES:
        raise NotInGguf(f"its architecture {kind} is not one of {', '.join(ARCHITECTURES)}")
    if any(sliding_layers(config)):
        raise NotInGguf(f"its architecture {kind} has sliding-window layers")
    if config.hidden_act != "silu":  # type: ignore[attr-defined]
        raise NotInGguf(f"its hidden_act is {config.hidden_act}; llama.cpp's {kind} has silu")  # type: ignore[attr-defined]
    if 2 * len(plan.inv_freq) != head_dim(config):
        raise NotInGguf("it rotates a part of each head only")
    return ARCHITECTURES[kind]


def add_shape(writer: Any, config: Any, plan: RopePlan, dtype: str) -> None:
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
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def add_rope(writer: Any, config: Any, rope: GgufRope) -> None:
    from gguf import RopeScalingType

    writer.add_rope_dimension_count(head_dim(config))
    writer.add_rope_freq_base(rope.freq_base)
    writer.add_rope_scaling_type(RopeScalingType(rope.scaling))
    if rope.scaling != "none":
        writer.add_rope_scaling_factor(rope.factor)
    if rope.scaling == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope.original)
    if rope.attn_factor != 1.0:
        writer.add_rope_scaling_attn_factors(rope.attn_factor)


def tensors(folder: Path, config: Any, architecture: str) -> Tensors:
    """By GGUF's names, none loaded yet. Raises: NotInGguf for a weight that the architecture does not have."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    known = get_tensor_name_map(MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    found: Tensors = {}
    for name, shape, get in weights(folder):
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        word = known.get_name(name, try_suffixes=(".weight", ".bias"))
        if word is None:
            raise NotInGguf(f"its weight {name} has no place in llama.cpp's {architecture}")
        part = name.split(".")[-2]
        turned = architecture == "llama" and part in heads
        found[word] = (shape, permuted(get, heads[part]) if turned else get)
    return found


def permuted(get: Callable[[], torch.Tensor], heads: int) -> Callable[[], torch.Tensor]:
    """llama.cpp's llama rotates neighbouring rows, transformers the two halves of a head; for qwen2 and qwen3 it rotates halves too."""

    def turned() -> torch.Tensor:
        whole = get()
        return whole.reshape(heads, 2, -1, *whole.shape[1:]).transpose(1, 2).reshape(whole.shape)

    return turned


def weights(folder: Path) -> Iterator[tuple[str, tuple[int, ...], Callable[[], torch.Tensor]]]:
    """Name, shape and how to load it, of every tensor in the folder's safetensors files."""
    for file in sorted(folder.glob("*.safetensors")):
        opened = safe_open(str(file), framework="pt")
        for name in opened.keys():  # noqa: SIM118  not a dict
            yield name, tuple(opened.get_slice(name).get_shape()), partial(opened.get_tensor, name)


def stream(writer: Any, found: Tensors, dtype: str) -> None:
    """One tensor in memory at a time. Vectors (norms, biases, rope_freqs) stay float32, as llama.cpp has them."""
    from gguf import GGMLQuantizationType

    for name, (shape, _) in found.items():
        kind = "f32" if len(shape) == 1 else dtype
        words = np.dtype(np.float32 if kind == "f32" else np.int16)
        size = int(np.prod(shape)) * words.itemsize
        writer.add_tensor_info(name, shape, words, size, GGMLQuantizationType[kind.upper()])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, (shape, get) in found.items():
        writer.write_tensor_data(encoded(name, get(), "f32" if len(shape) == 1 else dtype))
    writer.close()


def encoded(name: str, tensor: torch.Tensor, dtype: str) -> np.ndarray:
    cast = tensor.to(DTYPES[dtype]).contiguous()
    if not bool(torch.isfinite(cast).all()):
        raise ConfigError(
            f"export.gguf is {dtype}; {name} has weights that it cannot hold; set export.gguf=bf16 or f32"
        )
    found: np.ndarray = (cast if dtype == "f32" else cast.view(torch.int16)).numpy()
    return found
