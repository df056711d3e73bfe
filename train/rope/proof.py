"""Proof that a live model has the table that was planned: its buffers, its cos and sin, and its queries and keys.

Three looks, each blind to what the next one sees: the table a module holds; what the module returns at chosen positions;
and what every attention layer is really given, against the same queries and keys rotated here by the plan.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from ropewalk.conf.errors import ProofError
from ropewalk.train.rope import probe
from ropewalk.train.rope.methods import Table
from ropewalk.train.rope.plan import RopePlan

RTOL = 1e-6  # fp32 of a float64 table


def tolerance(factor: float) -> float:
    """A ramp in fp32 rounds a share near 1, and the factor multiplies that: at x64 transformers' own table is 5e-6 off."""
    return max(RTOL, factor * 2.0**-23)


def rotary_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every module that owns a table of frequencies, by name."""
    return {name: m for name, m in model.named_modules() if table_attributes(m)}


def table_attributes(module: nn.Module) -> dict[str | None, str]:
    """The names of a module's tables by layer type; None for one that serves all layers."""
    names = [
        n for n, b in {**module._buffers, **vars(module)}.items() if isinstance(b, torch.Tensor)
    ]
    found: dict[str | None, str] = {None: "inv_freq"} if "inv_freq" in names else {}
    ends = ("_original_inv_freq", "_long_inv_freq")
    for name in names:
        if (
            name.endswith("_inv_freq")
            and not name.endswith(ends)
            and name not in ("original_inv_freq", "long_inv_freq")
        ):
            found[name.removesuffix("_inv_freq")] = name
    return found


def restore(model: nn.Module, plan: RopePlan) -> None:
    """Put back in fp32 what a cast of the model rounded: in bf16, positions above 256 collide.

    Only a table that is the plan's own, rounded: another one is left as it is for the proof to find.
    """
    for module in rotary_modules(model).values():
        for layer_type, name in table_attributes(module).items():
            table = plan.tables().get(layer_type)
            if table is None:
                continue  # the proof says so
            at_rest = table.inv_freq if table.resting_inv_freq is None else table.resting_inv_freq
            for attribute in (
                name,
                name.replace("inv_freq", "original_inv_freq"),
            ):  # the latter: what a switch goes back to
                _restore(module, attribute, at_rest)


def _restore(module: Any, attribute: str, inv_freq: np.ndarray) -> None:
    live = getattr(module, attribute, None)
    if live is None or live.dtype == torch.float32 or live.shape != inv_freq.shape:
        return
    whole = torch.tensor(inv_freq, dtype=torch.float32, device=live.device)
    # a live fp32 table is off by rounding, which may fall to either side of a step of the coarser type
    rounded = [(whole * (1 + sign * RTOL)).to(live.dtype) for sign in (-1, 0, 1)]
    if bool(torch.stack([live == r for r in rounded]).any(dim=0).all()):
        setattr(module, attribute, whole)


def prove(model: nn.Module, plan: RopePlan, when: str, *, layers: bool = True) -> str:
    """Hold the live model against the plan. Returns one line to log. `layers` False leaves the third look to a later proof: the model
    cannot run before an engine gathers its parameters.

    Raises: ProofError that names the module or layer and the first dimension that differ.
    """
    modules = rotary_modules(model)
    if not modules:
        raise ProofError(
            f"rope proof {when}: the model has no module with inv_freq; its table cannot be read; choose another model"
        )
    count = 0
    for name, module in modules.items():
        for layer_type, attribute in table_attributes(module).items():
            table = plan.tables().get(layer_type)
            if table is None:
                raise ProofError(
                    f"rope proof {when}: {name}.{attribute} is a table that the plan does not know"
                )
            with _named(f"rope proof {when}: {name}"):
                _table(attribute, module, table, plan)
                _behaviour(layer_type, module, table, plan)
            count += 1
    seen = probe.prove_layers(model, modules, plan, when) if layers else None
    held = (
        "table and behaviour"
        if seen is None
        else f"table, behaviour and the queries and keys of {seen} layers"
    )
    return f"rope proof {when}: {count} rotary module(s) hold the plan {plan.hash[:12]}, {held}"


@contextmanager
def _named(where: str) -> Iterator[None]:
    try:
        yield
    except ProofError as error:
        raise ProofError(f"{where}{error}") from None


def _table(attribute: str, module: Any, table: Table, plan: RopePlan) -> None:
    buffer = getattr(module, attribute)
    wanted = table.inv_freq if table.resting_inv_freq is None else table.resting_inv_freq
    if buffer.dtype != torch.float32:
        raise ProofError(
            f".{attribute} is {buffer.dtype}; it must be float32; positions would collide"
        )
    live = buffer.detach().double().cpu().numpy()
    if live.shape != wanted.shape:
        raise ProofError(
            f".{attribute} has {live.shape[0]} dimensions; the plan has {wanted.shape[0]}"
        )
    wrong = np.flatnonzero(np.abs(live - wanted) > tolerance(plan.factor) * wanted)
    if len(wrong):
        i = int(wrong[0])
        raise ProofError(
            f".{attribute}[{i}] is {live[i]:.9g}; the plan has {wanted[i]:.9g}; "
            f"{len(wrong)} of {len(wanted)} dimensions differ: the model was not built from the plan"
        )
    scaling = attribute.replace("inv_freq", "attention_scaling")
    factor = float(getattr(module, scaling, 1.0))
    if abs(factor - table.attention_factor) > RTOL * table.attention_factor:
        raise ProofError(f".{scaling} is {factor:.9g}; the plan has {table.attention_factor:.9g}")


def _behaviour(layer_type: str | None, module: Any, table: Table, plan: RopePlan) -> None:
    """cos and sin as the module returns them, at chosen distances: catches one that ignores its own table."""
    original, length = plan.original_max_position_embeddings, plan.max_position_embeddings
    inside = sorted(
        {0, 1, 2, min(17, original - 2), original - 2}
    )  # at original - 1 transformers does not go back yet
    if table.resting_inv_freq is not None:
        _returns(layer_type, module, table.resting_inv_freq, table.attention_factor, inside)
    _returns(
        layer_type,
        module,
        table.inv_freq,
        table.attention_factor,
        sorted({*inside, original - 1, original, length - 1}),
    )
    if (
        table.resting_inv_freq is not None
    ):  # and back: what a long text left behind must not reach the next one
        _returns(layer_type, module, table.resting_inv_freq, table.attention_factor, inside)


def _returns(
    layer_type: str | None,
    module: Any,
    inv_freq: np.ndarray,
    attention_factor: float,
    positions: list[int],
) -> None:
    cos, sin = probe.cos_sin(module, positions, layer_type)
    angles = np.array(positions)[:, None] * inv_freq[None, :]
    for kind, live, wanted in (("cos", cos, np.cos(angles)), ("sin", sin, np.sin(angles))):
        repeated = live.shape[-1] // len(inv_freq)  # Llama's cos and sin hold the table twice
        copies = np.tile(wanted * attention_factor, repeated)
        if copies.shape != live.shape:
            raise ProofError(
                f" gives {kind} of {live.shape[-1]} dimensions; the plan has {len(inv_freq)} frequencies"
            )
        apart = min(
            _apart(live, copies),
            _apart(live, np.repeat(wanted * attention_factor, repeated, axis=1)),
            key=np.max,
        )
        # an fp32 angle is off by up to 2^-24 of itself
        allowed = 1e-5 + 2.0**-22 * np.array(positions)
        if (apart > allowed).any():
            p = positions[int(np.argmax(apart - allowed))]
            raise ProofError(
                f" gives another {kind} at position {p} than the plan; it ignores its table"
            )


def _apart(live: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.abs(live - wanted).max(axis=1)
    return found
