"""An adapter in peft's own format, whole tensors only: `PeftModel.from_pretrained` reads it on the rescaled base."""

import copy
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from ropewalk.conf.artifacts.manifest import read_json, write_json
from ropewalk.train.adapters.attach import config_of, fully_trained, library
from ropewalk.train.model.save import gather_full_state_dict, refuse_empty
from ropewalk.train.optim.param_groups import is_adapter
from ropewalk.train.rope.plan import RopePlan

PREFIX = "base_model.model."  # of every name in peft's files
README = """\
---
library_name: peft
---

A LoRA adapter by ropewalk. Its base must be rescaled first: set `rope_parameters` and `max_position_embeddings` of the base's
config to those of `rope.json`, load the base with that config, and then `PeftModel.from_pretrained(base, this_folder)`.
"""


def save(model: Any, plan: RopePlan, base: str, folder: Path) -> None:
    """Write `folder`: adapter_config.json, adapter_model.safetensors, rope.json, README.md. Every rank calls it.

    `base`: the name that the base goes by, no path. Raises: RopewalkError when a tensor comes out empty.
    """
    full = fully_trained(model)
    kept = {
        n: p for n, p in model.named_parameters() if is_adapter(n) or n.rsplit(".", 1)[0] in full
    }
    whole = gather_full_state_dict(kept.items())
    if dist.get_rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = _tensors(model, whole, tied_head(model, full))
        refuse_empty(tensors)
        save_file(tensors, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
        _write_config(model, full, base, folder)
        write_json(folder / "rope.json", plan.json())
        (folder / "README.md").write_text(README)
    dist.barrier()


def tied_head(model: Any, full: list[str]) -> tuple[str, str] | None:
    """The names of embeddings that are trained and of the head that is tied to them."""
    names = {id(module): name for name, module in model.named_modules()}
    embeddings, head = (
        names[id(model.get_input_embeddings())],
        names[id(model.get_output_embeddings())],
    )
    return (embeddings, head) if model.config.tie_word_embeddings and embeddings in full else None


def _tensors(
    model: Any, whole: dict[str, torch.Tensor], tied: tuple[str, str] | None
) -> dict[str, torch.Tensor]:
    """By the names of peft's files, which hold a tied head's weight once more."""
    from peft.utils import get_peft_model_state_dict

    found: dict[str, torch.Tensor] = get_peft_model_state_dict(
        model,
        state_dict={n: t for n, t in whole.items() if is_adapter(n)},
        save_embedding_layers=False,
    )
    found |= {name: tensor for name, tensor in whole.items() if not is_adapter(name)}
    if tied:
        found[f"{tied[1]}.weight"] = found[f"{tied[0]}.weight"].clone()
    return {PREFIX + name: tensor.contiguous() for name, tensor in sorted(found.items())}


def _write_config(model: Any, full: list[str], base: str, folder: Path) -> None:
    """peft's own, with its sets in order."""
    config = copy.deepcopy(config_of(model))
    config.base_model_name_or_path, config.inference_mode = base, True
    config.modules_to_save = full or None
    # who trains on from it keeps a head that was tied
    config.ensure_weight_tying = tied_head(model, full) is not None
    config.save_pretrained(str(folder))
    said = read_json(folder / library().utils.CONFIG_NAME)
    said["target_modules"] = sorted(said["target_modules"])
    write_json(folder / library().utils.CONFIG_NAME, said)
