"""The rope plan for a reader: one plan in lines, several side by side."""

from collections.abc import Sequence

import numpy as np

from ropewalk.train.rope.plan import RopePlan


def summary(plan: RopePlan) -> str:
    """One plan: a line for each pair of dimensions, against both windows."""
    after, before = np.array(plan.inv_freq), np.array(plan.base["inv_freq"])
    waves, old, shares = 2 * np.pi / after, 2 * np.pi / before, interpolated_share(plan)
    lines = [
        headline(plan),
        f"{'':>5} {'wavelength, tokens':^31} {'turns in the window':^21}",
        f"{'dim':>5} {'before':>15} {'after':>15} {'original':>10} {'new':>10} {'interpolated':>13}",
    ]
    for i in range(len(after)):
        turns, later = (
            plan.original_max_position_embeddings / old[i],
            plan.max_position_embeddings / waves[i],
        )
        lines.append(
            f"{i:>5} {old[i]:>15,.1f} {waves[i]:>15,.1f} {turns:>10.2f} {later:>10.2f} {shares[i]:>13.0%}"
        )
    return "\n".join([*lines, *_reading(plan, old, waves, shares)])


def _reading(plan: RopePlan, old: np.ndarray, waves: np.ndarray, shares: np.ndarray) -> list[str]:
    """What a reader looks for: where the ramp lies, and which angles the model has never seen."""
    kept, whole = int((np.abs(shares) < 0.005).sum()), int((shares > 0.995).sum())
    unseen = int(
        (
            (plan.base_window < old)
            & (plan.max_position_embeddings / waves > plan.base_window / old * 1.001)
        ).sum()
    )
    return [
        f"kept {kept}, in between {len(shares) - kept - whole}, divided by the whole factor {whole}; "
        f"{unseen} dimension(s) never came round in the base's window and turn further in the new one than it has seen"
    ]


def headline(plan: RopePlan) -> str:
    where = "" if plan.layer_type is None else f", {plan.layer_type} layers only"
    softmax = "" if plan.softmax_factor == 1 else f", softmax factor {plan.softmax_factor:.4f}"
    return (
        f"rope plan {plan.method} x{plan.factor:g}: {plan.original_max_position_embeddings:,} -> {plan.max_position_embeddings:,} tokens{where}, "
        f"theta {plan.rope_theta:g}, attention factor {plan.attention_factor:.4f}{softmax}, hash {plan.hash[:12]}"
    )


def interpolated_share(plan: RopePlan) -> np.ndarray:
    """Share interpolated of each frequency: 0 kept, 1 divided by the factor. Shape (d/2,)."""
    ratio = np.array(plan.inv_freq) / np.array(plan.base["inv_freq"])
    whole = 1 - 1 / plan.factor
    return (1 - ratio) / whole if whole > 0 else np.zeros_like(ratio)


def comparison_table(plans: Sequence[RopePlan]) -> str:
    """Several plans of one base: the share interpolated of each frequency, a column a method."""
    first = plans[0]
    old = 2 * np.pi / np.array(first.base["inv_freq"])
    columns = [f"{p.method[:12]:>13}" for p in plans]
    lines = [
        *map(headline, plans),
        f"{'dim':>5} {'wavelength before':>18} {'rotations':>10} " + "".join(columns),
    ]
    shares = [interpolated_share(p) for p in plans]
    for i in range(len(old)):
        turns = first.original_max_position_embeddings / old[i]
        lines.append(
            f"{i:>5} {old[i]:>18,.1f} {turns:>10.2f} " + "".join(f"{s[i]:>13.0%}" for s in shares)
        )
    lines.append(
        "(share interpolated: 0% kept, 100% divided by the factor; a raised theta can pass 100%)"
    )
    return "\n".join(lines)
