"""Programs of a rank in test_params.py: build, prove and train a model partitioned by ZeRO 3."""

from collections.abc import Callable
from typing import Any

import torch
from feeds import config, feed, train_steps
from host_memory import anonymous_growth
from parity_ranks import partition_small_params
from transformers.models.llama import modeling_llama

from ropewalk.conf.errors import ProofError, RopewalkError
from ropewalk.conf.lora import LoraConfig
from ropewalk.train import attention
from ropewalk.train.adapters import attach
from ropewalk.train.base import Base
from ropewalk.train.model import build, save
from ropewalk.train.rope import proof
from ropewalk.train.rope.plan import RopePlan
from ropewalk.train.zero import params
from ropewalk.train.zero.config import deepspeed_config
from ropewalk.train.zero.engine import build_engine
from ropewalk.train.zero.mesh import Mesh


def build_model(base: Base, plan: RopePlan, train: dict[str, Any]) -> tuple[Any, Any, bool]:
    """Model, engine, and whether every parameter was partitioned before there was an engine."""
    settings = config(**train)
    model = build.build(
        base,
        plan,
        dtype=torch.float32,
        seed=3,
        compute_dtype=torch.bfloat16 if train["precision"] == "bf16" else torch.float32,
        deepspeed_config=deepspeed_config(settings.train, 1),
    )
    partitioned = all(p.numel() == 0 for p in model.parameters())
    build.check_vocabulary(model, 97)
    engine = build_engine(model, settings, 1, Mesh.of(1))
    proof.restore(model, plan)
    return model, engine, partitioned


def weights(base: Base, plan: RopePlan, train: dict[str, Any]) -> dict[str, Any]:
    """The full weights after all proofs, and the message of the RoPE proof."""
    model, engine, partitioned = build_model(base, plan, train)
    message = proof.prove(model, plan, "in its engine")
    attention.prove_documents_isolated(model)
    state_dict = save.gather_full_state_dict(model.named_parameters())
    full = {name: tensor.float().numpy() for name, tensor in state_dict.items()}
    engine.destroy()
    return {"partitioned": partitioned, "message": message, "weights": full}


def losses(base: Base, plan: RopePlan, train: dict[str, Any], lora: LoraConfig) -> list[float]:
    """Losses of three steps with an adapter on the partitioned parameters."""
    settings, mesh = config(lora=lora, **train), Mesh.of(1)
    model = build.build(
        base,
        plan,
        dtype=torch.float32,
        compute_dtype=torch.float32,
        deepspeed_config=deepspeed_config(settings.train, 1),
    )
    attach.attach(model, lora, 0)
    with partition_small_params():
        engine: Any = build_engine(model, settings, 1, mesh)
    result = [line["loss"] for line in train_steps(engine, settings, feed(mesh, 1), range(3))]
    groups = {getattr(p, "ds_secondary_tensor_num_of_groups", 1) for p in model.parameters()}
    hpz_size = train.get("memory__zero_hpz_size")
    assert groups == {mesh.world_size // hpz_size if hpz_size else 1}
    engine.destroy()
    return result


def error_messages(base: Base, plan: RopePlan, train: dict[str, Any]) -> dict[str, str]:
    """Errors of the proofs and of the vocabulary check for a faulty partitioned model."""
    model, engine, _ = build_model(base, plan, train)
    original = modeling_llama.apply_rotary_pos_emb
    modeling_llama.apply_rotary_pos_emb = lambda q, k, *args, **kwargs: (q, k)
    messages = {"layers": _error_of(lambda: proof.prove(model, plan, "in the test"))}
    modeling_llama.apply_rotary_pos_emb = original
    module = next(iter(proof.rotary_modules(model).values()))
    module.inv_freq = module.inv_freq * 1.01
    messages["table"] = _error_of(lambda: proof.prove(model, plan, "in the test"))
    messages["vocabulary"] = _error_of(lambda: build.check_vocabulary(model, 98))
    engine.destroy()
    return messages


def _error_of(action: Callable[[], object]) -> str:
    try:
        action()
    except (ProofError, RopewalkError) as error:
        return str(error)
    return ""


def peak_of_load(base: Base, plan: RopePlan, train: dict[str, Any]) -> dict[str, float]:
    """Growth of this rank's anonymous memory in MiB while the model is built: highest, and last."""
    settings = config(**train)
    with anonymous_growth() as growth:
        model = build.build(
            base, plan, dtype=torch.float32, deepspeed_config=deepspeed_config(settings.train, 1)
        )
    assert params.is_partitioned(model)
    return {"highest": growth.highest, "after": growth.after}
