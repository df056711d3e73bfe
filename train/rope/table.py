"""The rope plan as text: one plan in lines, several plans side by side."""

from collections.abc import Sequence

import numpy as np

from ropewalk.train.rope.plan import RopePlan


def summary(plan: RopePlan) -> str:
    """One plan: a line for each pair of dimensions, against both windows."""
    old, new = (2 * np.pi / np.array(table) for table in (plan.base["inv_freq"], plan.inv_freq))
    old_turns = plan.original_max_position_embeddings / old
    new_turns = plan.max_position_embeddings / new
    shares = interpolated_share(plan)
    lines = [
        headline(plan),
        f"{'':>5} {'wavelength, tokens':^31} {'turns in the window':^21}",
        f"{'dim':>5} {'before':>15} {'after':>15} {'original':>10} {'new':>10} "
        f"{'interpolated':>13}",
    ]
    for i in range(len(new)):
        turns = f"{old_turns[i]:>10.2f} {new_turns[i]:>10.2f}"
        lines.append(f"{i:>5} {old[i]:>15,.1f} {new[i]:>15,.1f} {turns} {shares[i]:>13.0%}")
    return "\n".join([*lines, _ramp_line(plan, old, new, shares)])


def _ramp_line(plan: RopePlan, old: np.ndarray, new: np.ndarray, shares: np.ndarray) -> str:
    """Where the ramp lies, and how many dimensions reach angles that the base has never seen.

    `old` and `new`: wavelengths (d/2,) in tokens; `shares` (d/2,).
    """
    unchanged, divided = int((np.abs(shares) < 0.005).sum()), int((shares > 0.995).sum())
    incomplete = plan.base_window < old
    further = plan.max_position_embeddings / new > plan.base_window / old * 1.001
    unseen = int((incomplete & further).sum())
    return (
        f"kept {unchanged}, in between {len(shares) - unchanged - divided}, divided by the "
        f"whole factor {divided}; {unseen} dimension(s) complete no turn in the base's window and "
        "turn further in the new one"
    )


def headline(plan: RopePlan) -> str:
    layers = "" if plan.layer_type is None else f", {plan.layer_type} layers only"
    softmax = "" if plan.softmax_factor == 1 else f", softmax factor {plan.softmax_factor:.4f}"
    original, new = plan.original_max_position_embeddings, plan.max_position_embeddings
    theta, scaled = f"{plan.rope_theta:g}", plan.rope_parameters["rope_theta"]
    if scaled != plan.rope_theta:
        theta += f" -> {scaled:g}"
    return (
        f"rope plan {plan.method} x{plan.factor:g}: {original:,} -> {new:,} tokens{layers}, "
        f"theta {theta}, attention factor {plan.attention_factor:.4f}{softmax}, "
        f"hash {plan.hash[:12]}"
    )


def interpolated_share(plan: RopePlan) -> np.ndarray:
    """How far each frequency is interpolated: 0 kept, 1 divided by the factor. Shape (d/2,)."""
    ratio = np.array(plan.inv_freq) / np.array(plan.base["inv_freq"])
    full = 1 - 1 / plan.factor
    return (1 - ratio) / full if full > 0 else np.zeros_like(ratio)


def comparison_table(plans: Sequence[RopePlan]) -> str:
    """Several plans of one base: the interpolated share of each frequency, one column a method."""
    first = plans[0]
    old = 2 * np.pi / np.array(first.base["inv_freq"])
    methods = "".join(f"{plan.method[:12]:>13}" for plan in plans)
    head = f"{'dim':>5} {'wavelength before':>18} {'rotations':>10} {methods}"
    lines = [*map(headline, plans), head]
    shares = [interpolated_share(plan) for plan in plans]
    for i in range(len(old)):
        turns = first.original_max_position_embeddings / old[i]
        row = "".join(f"{share[i]:>13.0%}" for share in shares)
        lines.append(f"{i:>5} {old[i]:>18,.1f} {turns:>10.2f} {row}")
    lines.append(
        "(share interpolated: 0% kept, 100% divided by the factor; a raised theta can pass 100%)"
    )
    return "\n".join(lines)
