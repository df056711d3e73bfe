"""An adapter in peft's own format: `PeftModel.from_pretrained` reads it on the rescaled base."""

import copy
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from transformers import PreTrainedModel

from ropewalk.conf.artifacts.manifest import read_json, write_json
from ropewalk.train.adapters.attach import adapter_config, fully_trained_modules, import_peft
from ropewalk.train.model.save import gather_full_state_dict, refuse_empty
from ropewalk.train.optim.param_groups import is_adapter
from ropewalk.train.rope.plan import RopePlan

PREFIX = "base_model.model."  # of every name in peft's files
README = """\
---
library_name: peft
---

A LoRA adapter by ropewalk. Its base must be rescaled first: set `rope_parameters` and \
`max_position_embeddings` of the base's
config to those of `rope.json`, load the base with that config, and then \
`PeftModel.from_pretrained(base, this_folder)`.
"""


def save_adapter(model: PreTrainedModel, plan: RopePlan, base: str, folder: Path) -> None:
    """Collective. Write adapter_config.json, adapter_model.safetensors, rope.json and README.md.

    `base`: the public name of the base, not a path. Raises: RopewalkError for an empty tensor.
    """
    modules = fully_trained_modules(model)
    saved = [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if is_adapter(name) or name.rsplit(".", 1)[0] in modules
    ]
    full_state = gather_full_state_dict(saved)
    if dist.get_rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = _peft_state(model, full_state, tied_head(model, modules))
        refuse_empty(tensors)
        save_file(tensors, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
        _write_config(model, modules, base, folder)
        write_json(folder / "rope.json", plan.json())
        (folder / "README.md").write_text(README)
    dist.barrier()


def tied_head(model: PreTrainedModel, modules: list[str]) -> tuple[str, str] | None:
    """Names of the embeddings and the head, if the two are tied and `modules` trains them."""
    names = {id(module): name for name, module in model.named_modules()}
    embeddings = names[id(model.get_input_embeddings())]
    if not model.config.tie_word_embeddings or embeddings not in modules:
        return None
    return embeddings, names[id(model.get_output_embeddings())]


def _peft_state(
    model: PreTrainedModel, full_state: dict[str, torch.Tensor], tied: tuple[str, str] | None
) -> dict[str, torch.Tensor]:
    """Tensors by the names of peft's files, which hold a tied head's weight a second time."""
    from peft.utils import get_peft_model_state_dict

    adapter = {name: tensor for name, tensor in full_state.items() if is_adapter(name)}
    state: dict[str, torch.Tensor] = get_peft_model_state_dict(
        model, state_dict=adapter, save_embedding_layers=False
    )
    state |= {name: tensor for name, tensor in full_state.items() if name not in adapter}
    if tied:
        embeddings, head = tied
        state[f"{head}.weight"] = state[f"{embeddings}.weight"].clone()
    return {PREFIX + name: tensor.contiguous() for name, tensor in sorted(state.items())}


def _write_config(model: PreTrainedModel, modules: list[str], base: str, folder: Path) -> None:
    """peft's own configuration, its sets sorted so that the bytes are reproducible."""
    config = copy.deepcopy(adapter_config(model))
    config.base_model_name_or_path, config.inference_mode = base, True
    config.modules_to_save = modules or None
    # A head that was tied stays tied when training continues from this adapter.
    config.ensure_weight_tying = tied_head(model, modules) is not None
    config.save_pretrained(str(folder))
    path = folder / import_peft().utils.CONFIG_NAME
    values = read_json(path)
    values["target_modules"] = sorted(values["target_modules"])
    write_json(path, values)
