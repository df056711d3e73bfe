"""Proof that a live model has the table that was planned: its own buffers, and its own rotation of q and k."""

from typing import Any

import numpy as np
import torch
from torch import nn

from ropewalk.conf.errors import ProofError
from ropewalk.train.rope.plan import RopePlan

RTOL = 1e-6  # fp32 of a float64 table


def tolerance(factor: float) -> float:
    """A ramp in fp32 rounds a share near 1, and the factor multiplies that: at x64 transformers' own table is 5e-6 off."""
    return max(RTOL, factor * 2.0**-23)


def rotary_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every module that owns an `inv_freq`, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(getattr(m, "inv_freq", None), torch.Tensor)}


def restore(model: nn.Module, plan: RopePlan) -> None:
    """Put the fp32 table back after a cast of the model: in bf16, positions above 256 collide."""
    for module in rotary_modules(model).values():
        buffer: Any = module.inv_freq
        module.inv_freq = torch.tensor(plan.inv_freq, dtype=torch.float32, device=buffer.device)


def prove(model: nn.Module, plan: RopePlan, when: str) -> str:
    """Hold the live model against the plan. Returns one line to log.

    Raises: ProofError that names the module and the first dimension that differ.
    """
    modules = rotary_modules(model)
    if not modules:
        raise ProofError(
            f"rope proof {when}: the model has no module with inv_freq; its table cannot be read; choose another model"
        )
    for name, module in modules.items():
        _table(name, module, plan, when)
        _behaviour(name, module, plan, when)
    return f"rope proof {when}: {len(modules)} rotary module(s) hold the plan {plan.hash[:12]}, table and behaviour"


def _table(name: str, module: Any, plan: RopePlan, when: str) -> None:
    live, wanted = module.inv_freq.detach().double().cpu().numpy(), np.array(plan.inv_freq)
    if module.inv_freq.dtype != torch.float32:
        raise ProofError(
            f"rope proof {when}: {name}.inv_freq is {module.inv_freq.dtype}; it must be float32; positions would collide"
        )
    if live.shape != wanted.shape:
        raise ProofError(
            f"rope proof {when}: {name}.inv_freq has {live.shape[0]} dimensions; the plan has {wanted.shape[0]}"
        )
    wrong = np.flatnonzero(np.abs(live - wanted) > tolerance(plan.factor) * wanted)
    if len(wrong):
        i = int(wrong[0])
        raise ProofError(
            f"rope proof {when}: {name}.inv_freq[{i}] is {live[i]:.9g}; the plan has {wanted[i]:.9g}; "
            f"{len(wrong)} of {len(wanted)} dimensions differ: the model was not built from the plan"
        )
    factor = float(getattr(module, "attention_scaling", 1.0))
    if abs(factor - plan.attention_factor) > RTOL * plan.attention_factor:
        raise ProofError(
            f"rope proof {when}: {name}.attention_scaling is {factor:.9g}; the plan has {plan.attention_factor:.9g}"
        )


def _behaviour(name: str, module: Any, plan: RopePlan, when: str) -> None:
    """cos and sin as the module returns them, at chosen distances: catches one that ignores its own table."""
    length = plan.max_position_embeddings
    positions = sorted(
        {
            0,
            1,
            2,
            17,
            plan.original_max_position_embeddings - 1,
            plan.original_max_position_embeddings,
            length - 1,
        }
    )
    device = module.inv_freq.device
    with torch.no_grad():
        ids = torch.tensor([positions], device=device)
        cos, sin = module(torch.zeros(1, len(positions), 1, dtype=torch.float32, device=device), ids)
    half = len(plan.inv_freq)
    angles = np.array(positions)[:, None] * np.array(plan.inv_freq)[None, :]
    for kind, live, wanted in (("cos", cos, np.cos(angles)), ("sin", sin, np.sin(angles))):
        table = live[0].double().cpu().numpy()
        copies = np.tile(wanted * plan.attention_factor, table.shape[-1] // half)  # Llama's cos and sin hold it twice
        error = np.abs(table - copies).max(axis=1)
        # an fp32 angle is off by up to 2^-24 of itself
        allowed = 1e-5 + 2.0**-22 * np.array(positions)
        if (error > allowed).any():
            p = positions[int(np.argmax(error - allowed))]
            raise ProofError(
                f"rope proof {when}: {name} gives another {kind} at position {p} than the plan; it ignores its table"
            )
