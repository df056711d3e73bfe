"""Proof that a live model has the planned table: buffers, cos and sin, queries and keys.

Three checks, each of which finds what the one before it cannot: the table that a module holds; what
the module returns at chosen positions; and what every attention layer receives, against the same
queries and keys rotated here by the plan.

    S positions   d rotary dimensions of a head
"""

import re
from typing import cast

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from ropewalk.conf.errors import ProofError
from ropewalk.conf.rope_methods import Table
from ropewalk.train.rope import probe
from ropewalk.train.rope.layer_proof import error_prefix, prove_layers
from ropewalk.train.rope.plan import RopePlan

RTOL = 1e-6  # fp32 of a float64 table


def tolerance(factor: float) -> float:
    """Relative error that an fp32 table may have.

    A ramp in fp32 rounds a share near 1, and the factor multiplies that rounding: at x64
    transformers' own table is 5e-6 off.
    """
    return max(RTOL, factor * 2.0**-23)


def rotary_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every module that owns a table of frequencies, by name."""
    return {name: m for name, m in model.named_modules() if table_attributes(m)}


def table_attributes(module: nn.Module) -> dict[str | None, str]:
    """The attribute names of a module's tables by layer type; None: the table of all layers."""
    attributes = {**module._buffers, **vars(module)}
    names = [name for name, value in attributes.items() if isinstance(value, torch.Tensor)]
    tables: dict[str | None, str] = {None: "inv_freq"} if "inv_freq" in names else {}
    for name in names:
        # a table that switches by length has copies: `long_inv_freq`, `original_inv_freq`
        is_copy = re.search(r"(^|_)(original|long)_inv_freq$", name)
        if name.endswith("_inv_freq") and not is_copy:
            tables[name.removesuffix("_inv_freq")] = name
    return tables


def restore(model: nn.Module, plan: RopePlan) -> None:
    """Restore in fp32 the tables that a cast rounded: in bf16, positions above 256 collide.

    Only the plan's own table, rounded, is replaced: any other table is left for `prove` to find.
    """
    planned = plan.tables()
    for module in rotary_modules(model).values():
        for layer_type, name in table_attributes(module).items():
            if layer_type not in planned:
                continue  # `prove` raises for it
            inv_freq = short_table(planned[layer_type])
            _restore(module, name, inv_freq)
            # a table that switches by length is restored from this copy
            _restore(module, name.replace("inv_freq", "original_inv_freq"), inv_freq)


def _restore(module: nn.Module, attribute: str, inv_freq: np.ndarray) -> None:
    """Replace one table by `inv_freq` (d/2,) if it is a rounded copy of it."""
    live = getattr(module, attribute, None)
    if live is None or live.dtype == torch.float32 or live.shape != inv_freq.shape:
        return
    table = torch.tensor(inv_freq, dtype=torch.float32, device=live.device)
    # rounding in fp32 may have moved the live table to either side of a step of the coarser type
    rounded = [(table * (1 + sign * RTOL)).to(live.dtype) for sign in (-1, 0, 1)]
    if bool(torch.stack([live == r for r in rounded]).any(dim=0).all()):
        setattr(module, attribute, table)


def short_table(table: Table) -> np.ndarray:
    """Frequencies (d/2,) up to the original window: a module holds them before any long text."""
    return table.inv_freq if table.short_inv_freq is None else table.short_inv_freq


def prove(model: nn.Module, plan: RopePlan, when: str, *, layers: bool = True) -> str:
    """Hold the live model against the plan. Returns one line to log.

    `layers` False leaves the third check to a later proof: a model whose parameters are partitioned
    cannot run before an engine gathers them.

    Raises: ProofError that names the module or layer and the first dimension that differ.
    """
    modules = rotary_modules(model)
    if not modules:
        raise ProofError(
            f"rope proof {when}: the model has no module with inv_freq; its table cannot be read; "
            "choose another model"
        )
    planned, count = plan.tables(), 0
    for name, module in modules.items():
        for layer_type, attribute in table_attributes(module).items():
            if layer_type not in planned:
                raise ProofError(
                    f"rope proof {when}: {name}.{attribute} is a table that the plan does not have"
                )
            with error_prefix(f"rope proof {when}: {name}"):
                _check_table(attribute, module, planned[layer_type], plan)
                _check_behaviour(layer_type, module, planned[layer_type], plan)
            count += 1
    checked = "table and behaviour"
    # a rotary module alone has no attention layers
    if layers and hasattr(model, "set_attn_implementation"):
        num_layers = prove_layers(cast(PreTrainedModel, model), modules, plan, when)
        checked = f"table, behaviour and the queries and keys of {num_layers} layers"
    return f"rope proof {when}: {count} rotary module(s) hold the plan {plan.hash[:12]}, {checked}"


def _check_table(attribute: str, module: nn.Module, table: Table, plan: RopePlan) -> None:
    """The module's buffer and its attention scaling."""
    buffer = getattr(module, attribute)
    if buffer.dtype != torch.float32:
        raise ProofError(
            f".{attribute} is {buffer.dtype}; it must be float32; positions would collide"
        )
    live, planned = buffer.detach().double().cpu().numpy(), short_table(table)
    if live.shape != planned.shape:
        raise ProofError(f".{attribute} has {len(live)} dimensions; the plan has {len(planned)}")
    wrong = np.flatnonzero(np.abs(live - planned) > tolerance(plan.factor) * planned)
    if len(wrong):
        i = int(wrong[0])
        raise ProofError(
            f".{attribute}[{i}] is {live[i]:.9g}; the plan has {planned[i]:.9g}; {len(wrong)} of "
            f"{len(planned)} dimensions differ: the model was not built from the plan"
        )
    scaling = attribute.replace("inv_freq", "attention_scaling")
    factor = float(getattr(module, scaling, 1.0))
    if abs(factor - table.attention_factor) > RTOL * table.attention_factor:
        raise ProofError(f".{scaling} is {factor:.9g}; the plan has {table.attention_factor:.9g}")


def _check_behaviour(
    layer_type: str | None, module: nn.Module, table: Table, plan: RopePlan
) -> None:
    """cos and sin as the module returns them: finds a module that ignores its own table."""
    original, length = (plan.original_max_position_embeddings, plan.max_position_embeddings)
    # not original - 1: there transformers does not go back to the short table yet
    inside = sorted({0, 1, 2, min(17, original - 2), original - 2})
    positions = sorted({*inside, original - 1, original, length - 1})
    factor, short = table.attention_factor, table.short_inv_freq
    if short is not None:
        _check_cos_sin(layer_type, module, short, factor, inside)
    _check_cos_sin(layer_type, module, table.inv_freq, factor, positions)
    if short is not None:  # again: a long text must not change the table of the next short one
        _check_cos_sin(layer_type, module, short, factor, inside)


def _check_cos_sin(
    layer_type: str | None,
    module: nn.Module,
    inv_freq: np.ndarray,
    attention_factor: float,
    positions: list[int],
) -> None:
    """Hold cos and sin (S, d/2) or (S, d) at `positions` against those of `inv_freq` (d/2,)."""
    cos, sin = probe.cos_sin(module, positions, layer_type)
    angles = np.array(positions)[:, None] * inv_freq[None, :]
    for name, live, planned in (("cos", cos, np.cos(angles)), ("sin", sin, np.sin(angles))):
        planned = planned * attention_factor
        repeats = live.shape[-1] // len(inv_freq)  # Llama's cos and sin hold the table twice
        tiled, repeated = np.tile(planned, repeats), np.repeat(planned, repeats, axis=1)
        if tiled.shape != live.shape:
            raise ProofError(
                f" gives {name} of {live.shape[-1]} dimensions; the plan has {len(inv_freq)} "
                "frequencies"
            )
        error = min((np.abs(live - x).max(axis=1) for x in (tiled, repeated)), key=np.max)
        # an fp32 angle is off by up to 2^-24 of itself
        allowed = 1e-5 + 2.0**-22 * np.array(positions)
        if (error > allowed).any():
            position = positions[int(np.argmax(error - allowed))]
            raise ProofError(
                f" gives another {name} at position {position} than the plan; it ignores its table"
            )
