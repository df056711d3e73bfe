"""The loss over a large vocabulary: ours beside full logits and torch's chunked loss.

Forward and backward in fp32, with gradients of the hidden states and of the head.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import common
import numpy as np

SIZE = {"tokens": 16384, "vocabulary": 49152, "hidden": 576}  # SmolLM2-135M's head
HF, TORCH = "transformers ForCausalLMLoss on full logits", "torch linear_cross_entropy with options"
NEEDED_MIB = 12_000  # of full logits, their log-softmax and their gradient


# -- in the child ----------------------------------------------------------------------------------


def measure_loss(
    kind: str, tokens: int, vocabulary: int, hidden: int, folder: str
) -> dict[str, float]:
    """Loss, seconds and peak of one forward and backward; gradients go to `folder`."""
    import torch

    loss = {"ours": _ours, "hf": _hf, "torch": _torch}[kind]
    states, head, labels = _inputs(tokens, vocabulary, hidden)
    loss(states[:64], head, labels[:64]).backward()
    states.grad = head.grad = None
    peak, started = common.Peak(), time.perf_counter()
    total = loss(states, head, labels)
    total.backward()
    seconds, peak_mib = time.perf_counter() - started, peak.mib()
    for name, tensor in (("states", states), ("head", head)):
        assert tensor.grad is not None and torch.isfinite(tensor.grad).all()
        np.save(Path(folder) / f"{kind}_{name}.npy", tensor.grad.numpy())
    return {"loss": float(total), "seconds": seconds, "peak_mib": peak_mib}


def _inputs(tokens: int, vocabulary: int, hidden: int) -> Any:
    import torch

    torch.manual_seed(0)
    states = torch.randn(tokens, hidden).requires_grad_()
    head = (torch.randn(vocabulary, hidden) * 0.02).requires_grad_()
    labels = torch.randint(0, vocabulary, (tokens,))
    labels[:: tokens // 8] = -100  # as at document ends
    return states, head, labels


def _ours(states: Any, head: Any, labels: Any) -> Any:
    from ropewalk.train.loss import summed_cross_entropy

    return summed_cross_entropy(states, head, labels)


def _hf(states: Any, head: Any, labels: Any) -> Any:
    from transformers.loss.loss_utils import ForCausalLMLoss

    logits = states @ head.T
    return ForCausalLMLoss(
        logits, None, head.shape[0], num_items_in_batch=1, shift_labels=labels
    )  # a sum


def _torch(states: Any, head: Any, labels: Any) -> Any:
    import torch

    options = torch.nn.LinearCrossEntropyOptions()
    return torch.nn.functional.linear_cross_entropy(
        states, head, labels, reduction="sum", ignore_index=-100, options=options
    )


# -- in the parent ---------------------------------------------------------------------------------


def loss_memory(quick: bool) -> list[dict[str, Any]]:
    """Peak, seconds and equality. The full-logits peer is left out where memory is short."""
    size = {"tokens": 1024, "vocabulary": 4096, "hidden": 64} if quick else SIZE
    kinds = (
        ["ours", "torch", "hf"]
        if quick or common.available_mib() > NEEDED_MIB
        else ["ours", "torch"]
    )
    with tempfile.TemporaryDirectory() as folder:
        runs = common.alternate(
            1 if quick else 2,
            {
                kind: lambda kind=kind: common.child(
                    "losses:measure_loss", kind=kind, folder=folder, **size
                )
                for kind in kinds
            },
        )
        apart = {kind: _apart(runs, kind, Path(folder)) for kind in kinds[1:]}
    return [r for kind in kinds[1:] for r in _results(runs, kind, apart[kind])]


def _results(
    runs: dict[str, list[Any]], kind: str, apart: dict[str, float]
) -> list[dict[str, Any]]:
    peer, end = {"hf": HF, "torch": TORCH}[kind], "" if kind == "hf" else "_torch"
    peak, seconds = (
        {k: common.median([r[key] for r in runs[k]]) for k in ("ours", kind)}
        for key in ("peak_mib", "seconds")
    )
    bar = "ratio <= 0.1" if kind == "hf" else None
    of_rounds = [a["seconds"] / b["seconds"] for a, b in zip(runs["ours"], runs[kind], strict=True)]
    return [
        common.result(
            f"loss_memory{end}", peak["ours"], "MiB", peer=peer, peer_value=peak[kind], bar=bar
        ),
        common.result(
            f"loss_seconds{end}",
            seconds["ours"],
            "s",
            peer=peer,
            peer_value=seconds[kind],
            ratio_of_rounds=common.spread(of_rounds),
        ),
        common.result(
            f"loss_difference{end}", max(apart.values()), "relative", bar="value <= 1e-5", **apart
        ),
    ]


def _apart(runs: dict[str, list[Any]], kind: str, folder: Path) -> dict[str, float]:
    """Relative differences of the loss and of both gradients (in their norms)."""
    differences = {"loss": abs(runs["ours"][0]["loss"] / runs[kind][0]["loss"] - 1)}
    for name in ("states", "head"):
        ours, theirs = (
            np.load(folder / f"{k}_{name}.npy").astype(np.float64) for k in ("ours", kind)
        )
        differences[f"gradient_of_{name}"] = float(
            np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
        )
    return differences
