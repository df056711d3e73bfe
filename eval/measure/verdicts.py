"""Sentences that the numbers must hold up: name, value, rule, and whether it holds. Nothing is hidden when it does not."""

from typing import Any


def verdicts(models: dict[str, Any], window: int, length: int) -> list[dict[str, Any]]:
    """The checks that apply to what was measured; empty without a base to compare with or a longer context."""
    if "base" not in models or "extended" not in models or length <= window:
        return []
    base, extended = models["base"], models["extended"]
    found = []
    rise = _mean(base, window, length) - _mean(base, 0, window)
    found.append(
        _verdict(
            "Base past its window",
            rise,
            f"{rise:+.2f} nats",
            rise > 1,
            "loss past the window over inside it: above +1 shows that extension is needed",
        )
    )
    if "rescaled" in models:
        better = _mean(models["rescaled"], window, length) - _mean(base, window, length)
        found.append(
            _verdict(
                "Rescaled only, past the window",
                better,
                f"{better:+.2f} nats",
                better < 0,
                "against the base at the same positions: below 0",
            )
        )
    kept = _mean(extended, 0, window) - _mean(base, 0, window)
    found.append(
        _verdict(
            "Inside the original window",
            kept,
            f"{kept:+.3f} nats",
            kept <= 0.05,
            "extended against base: at most +0.05",
        )
    )
    gain = extended["context_gain"][-1]
    text = f"{gain['difference']:+.3f} nats [{gain['difference_low']:+.3f}, {gain['difference_high']:+.3f}]"
    found.append(
        _verdict(
            "Same tokens, longer context",
            gain["difference"],
            text,
            gain["difference_high"] < 0,
            f"loss with {gain['context']:,} tokens of context against {window:,}: interval below 0",
        )
    )
    if cells := [c for c in extended["passkey"] if c["length"] == length]:
        accuracy = sum(c["accuracy"] for c in cells) / len(cells)
        found.append(
            _verdict(
                f"Passkey at {length:,}",
                accuracy,
                f"{accuracy:.0%}",
                accuracy >= 0.8,
                "extended, mean over the depths: at least 80%",
            )
        )
    return found


def _verdict(name: str, number: float, value: str, holds: bool, rule: str) -> dict[str, Any]:
    return {"name": name, "number": number, "value": value, "rule": rule, "holds": bool(holds)}


def _mean(model: dict[str, Any], start: int, end: int) -> float:
    """Token-weighted loss of the bins inside [start, end)."""
    bins = [b for b in model["nll_by_position"] if b["from"] >= start and b["to"] <= end]
    return sum(b["nll"] * b["tokens"] for b in bins) / max(1, sum(b["tokens"] for b in bins))
