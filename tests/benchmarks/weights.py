"""Seconds to hold a base's weights against its config: headers, parameters, a sample of values."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import common

LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
    "max_position_embeddings": 8192,
}
SMALL = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 2048}
SHARDS = 4


# -- in the child ----------------------------------------------------------------------------------


def check(changes: dict[str, int]) -> dict[str, float]:
    """Seconds of the preflight's look at the files, and the bytes of the weights."""
    from transformers import AutoConfig

    from ropewalk.train.base import Base
    from ropewalk.train.preflight import file_problems

    with tempfile.TemporaryDirectory() as folder:
        size = sparse_base(Path(folder), LLAMA_8B | changes)
        config = AutoConfig.from_pretrained(folder)
        started = time.perf_counter()
        problems = file_problems(Base(folder), config)
        seconds = time.perf_counter() - started
    assert not problems, problems
    return {"seconds": seconds, "bytes": size}


def sparse_base(folder: Path, values: dict[str, Any]) -> int:
    """A base of zeros in four shards that take no room on the disk; returns its size in bytes."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    (folder / "config.json").write_text(json.dumps(values))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    tensors = [*model.state_dict().items()]
    weight_map: dict[str, str] = {}
    total = 0
    for number in range(SHARDS):
        file = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
        of_file = tensors[number::SHARDS]
        total += _write_sparse(folder / file, {n: list(t.shape) for n, t in of_file})
        weight_map |= {name: file for name, _ in of_file}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return total


def _write_sparse(file: Path, shapes: dict[str, list[int]]) -> int:
    header: dict[str, Any] = {}
    position = 0
    for name, shape in shapes.items():
        end = position + 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, end]}
        position = end
    content = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(len(content).to_bytes(8, "little") + content)
        stream.truncate(8 + len(content) + position)
    return position


# -- in the parent ---------------------------------------------------------------------------------


def weights_preflight(quick: bool) -> list[dict[str, Any]]:
    """Median of several processes."""
    changes = SMALL if quick else {}
    common.say("weights_preflight")
    arms = {"ours": lambda: common.child("weights:check", changes=changes)}
    rows = common.alternate(1 if quick else 3, arms)["ours"]
    seconds = [row["seconds"] for row in rows]
    more = {"gb": round(rows[0]["bytes"] / 1e9, 1), "of_rounds": common.spread(seconds)}
    value = common.median(seconds)
    return [common.result("weights_preflight", value, "s", bar="value <= 3", **more)]
