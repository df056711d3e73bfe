"""Programs of a rank in test_seeds.py: LoRA training with dropout."""

from dataclasses import replace
from typing import Any

import torch
from feeds import Rows, config, train_steps
from models import tiny_model

from ropewalk.conf.lora import LoraConfig
from ropewalk.data.dataset import BatchLoader
from ropewalk.train import attention
from ropewalk.train.adapters import attach
from ropewalk.train.attention import ulysses
from ropewalk.train.loop.step import use_deterministic_kernels
from ropewalk.train.model import save
from ropewalk.train.zero import engine
from ropewalk.train.zero.mesh import Mesh

STEPS = 3


def train_cases(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [train(**case) for case in cases]


def train(
    seed: int,
    dropout: float = 0.3,
    checkpointing: bool = False,
    deterministic: bool = False,
    sp_size: int = 1,
    accumulated: int = 1,
    zero_stage: int = 1,
) -> dict[str, Any]:
    """LoRA with dropout."""
    if deterministic:
        use_deterministic_kernels()
    mesh, lora = Mesh.of(sp_size), LoraConfig(rank=2, dropout=dropout)
    settings = replace(
        config(
            lora=lora,
            memory__activation_checkpointing=checkpointing,
            optimizer__lr=1e-2,
            sp_size=sp_size,
            zero_stage=zero_stage,
        ),
        seed=seed,
    )
    model = tiny_model()
    wrapper = ulysses.kernel_wrapper(model.config, mesh)
    model.set_attn_implementation(attention.register("sdpa", wrapper))
    attach.attach(model, lora, seed)
    live: Any = engine.build_engine(model, settings, accumulated, mesh)
    torch.seed()  # the result must not depend on the generator's state
    feed = BatchLoader(Rows(), mesh, seed=seed, micro_batch_size=1, batch_ramp=[(0, accumulated)])
    lines = train_steps(live, settings, feed, range(STEPS))
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    live.destroy()
    return {
        "losses": [line["loss"] for line in lines],
        "sequences": [line["sequences"] for line in lines],
        "weights": {
            name: tensor.numpy()
            for name, tensor in save.gather_full_state_dict(iter(named)).items()
        },
    }
