"""Proof, before the first step, that the kernel that trains computes attention on this device.

The registered function, Ulysses' exchange and S2-Attn included, runs forward and backward on two
documents of 64 tokens, and so does a softmax in fp32 under a dense mask inside the same exchange. A
package built for another torch, another meaning of a window or another order of arguments shows
here, and not as a loss that looks right.

    S tokens   s = S / P those of this rank   T queries   U keys   H query heads   K key/value heads
    D head size   E of values
"""

import math
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from ropewalk.conf.errors import ConfigError, ProofError
from ropewalk.train.attention import backend
from ropewalk.train.attention.borders import (
    DocumentBorders,
    Ends,
    document_borders,
    document_lengths,
)
from ropewalk.train.attention.support import requirements_of
from ropewalk.train.model.geometry import head_counts, head_dim, sliding_layers, value_dim

FIRST = 64
"""Tokens of the first of two documents; the second has as many where the ranks divide both."""
WINDOW = 24
"""Sliding window of the proof: the model's own would reach beyond its documents."""
SCALE = 2.0
"""Times 1 / sqrt(D): scores that a kernel must not scale by its default."""
TOLERANCES = {
    torch.float32: (1e-4, 1e-4),
    torch.float16: (1e-2, 2e-2),
    torch.bfloat16: (1e-2, 2e-2),
}
"""Relative distances of the output and of each gradient that roundings may make."""


def prove_kernel(
    model: PreTrainedModel, dtype: torch.dtype, device: torch.device, ranks: int
) -> str:
    """Collective over the `ranks` that share a sequence. A line for the log.

    `dtype`: that of the attention's inputs. No parameter is read. Raises: ConfigError when the
    kernel cannot be called, ProofError when its numbers are others.
    """
    name = str(model.config._attn_implementation)
    sinks = requirements_of(model, dtype).sinks
    sliding = sliding_layers(model.config)
    windows = [w for w, some in ((None, not all(sliding)), (WINDOW, any(sliding))) if some]
    furthest = [0.0, 0.0]
    for window in windows:
        inputs = _random_inputs(model.config, dtype, device, ranks, sinks)
        distances = _distances(name, inputs, _borders(device, ranks), window)
        _refuse_distant(name, distances, dtype, window)
        furthest = [max(a, b) for a, b in zip(furthest, distances, strict=True)]
    return (
        f"attention kernel {backend.version_of(name)}: on two documents its output is "
        f"{furthest[0]:.1e} and its gradients are {furthest[1]:.1e} from a softmax in fp32"
    )


def _borders(device: torch.device, ranks: int) -> DocumentBorders:
    total = math.lcm(2 * FIRST, ranks)
    return document_borders(torch.tensor([0, FIRST, total], dtype=torch.int32), device)


def _random_inputs(
    config: PreTrainedConfig, dtype: torch.dtype, device: torch.device, ranks: int, sinks: bool
) -> list[torch.Tensor]:
    """query (1, H, s, D), key (1, K, s, D), value (1, K, s, E), weights of the output
    (1, s, H, E) and, if the model has them, sinks (H,)."""
    tokens = math.lcm(2 * FIRST, ranks) // ranks
    heads, kv_heads = head_counts(config)
    sizes = head_dim(config), value_dim(config)
    shapes: list[tuple[int, ...]] = [
        (1, heads, tokens, sizes[0]),
        (1, kv_heads, tokens, sizes[0]),
        (1, kv_heads, tokens, sizes[1]),
        (1, tokens, heads, sizes[1]),
    ]
    draw = torch.Generator().manual_seed(0)
    shapes += [(heads,)] if sinks else []
    return [torch.randn(shape, generator=draw).to(device, dtype) for shape in shapes]


def _distances(
    name: str, inputs: list[torch.Tensor], borders: DocumentBorders, window: int | None
) -> list[float]:
    """Relative distances of the output, and the largest of a gradient, from the reference."""
    kernel = AttentionInterface()[name]
    reference = backend.in_the_same_wrappers(name, dense_attention)
    try:
        results = _attend(kernel, inputs, borders, window)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ConfigError(
            f"train.attention.kernel is {backend.describe(name)}; its first call on this device "
            f"failed ({reason}); install a version of {backend.version_of(name)} that fits this "
            "torch and GPU, or set train.attention.kernel=sdpa"
        ) from error
    expected = _attend(reference, [x.float() for x in inputs], borders, window)
    distances = [_relative_distance(a, b) for a, b in zip(results, expected, strict=True)]
    return [distances[0], max(distances[1:])]


def _attend(
    kernel: Any, inputs: list[torch.Tensor], borders: DocumentBorders, window: int | None
) -> list[torch.Tensor]:
    """The output and the gradients of queries, keys, values and sinks."""
    query, key, value, weights, *sinks = inputs
    leaves = [x.detach().requires_grad_() for x in (query, key, value, *sinks)]
    options: dict[str, Any] = {"sliding_window": window} if window is not None else {}
    if sinks:
        options["s_aux"] = leaves[3]
    scale = SCALE * query.shape[3] ** -0.5
    module = nn.Module().train()
    with torch.enable_grad():
        output, _ = kernel(module, *leaves[:3], None, scaling=scale, **borders, **options)
        return [output.detach(), *torch.autograd.grad((output.float() * weights).sum(), leaves)]


def _relative_distance(actual: torch.Tensor, expected: torch.Tensor) -> float:
    norm = float(expected.norm())
    distance = float((actual.float() - expected.float()).norm())
    return distance / norm if norm else distance


def _refuse_distant(
    name: str, distances: list[float], dtype: torch.dtype, window: int | None
) -> None:
    """Raises: ProofError."""
    tolerances = TOLERANCES[dtype]
    for part, distance, most in zip(("output", "gradients"), distances, tolerances, strict=True):
        if not distance <= most:  # NaN too
            what = "a sliding window" if window else "full attention"
            raise ProofError(
                f"train.attention.kernel is {backend.describe(name)}; on two documents, with "
                f"{what}, its {part} must be within {most:.0e} of a softmax in fp32 under a dense "
                f"mask and is {distance:.2g} away; {backend.version_of(name)} does not compute "
                "this model's attention here; set train.attention.kernel=sdpa"
            )


def dense_attention(
    module: nn.Module | None,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    scaling: float,
    document_ends: Ends,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    key_borders: DocumentBorders | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The softmax as it is defined. query (1, H, T, D), key (1, K, U, D), value (1, K, U, E)
    -> (1, T, H, E). The queries of a document are its last tokens."""
    key_ends = document_ends if key_borders is None else key_borders["document_ends"]
    mask = visible_keys(document_ends, key_ends, sliding_window).to(query.device)
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    scores = (query @ key.transpose(2, 3) * scaling).masked_fill(~mask, float("-inf"))
    if s_aux is not None:
        sinks = s_aux[None, :, None, None].expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, sinks], dim=3)
    shares = scores.softmax(-1)[..., : key.shape[2]]
    return (shares @ value).transpose(1, 2), None


def visible_keys(ends: Ends, key_ends: Ends, window: int | None) -> torch.Tensor:
    """(T, U) bool: whether the query (row) sees the key (column)."""
    lengths, key_lengths = (document_lengths(x) for x in (ends, key_ends))
    documents, key_documents = (
        torch.arange(len(n)).repeat_interleave(torch.tensor(n)) for n in (lengths, key_lengths)
    )
    spans = zip(lengths, key_lengths, strict=True)
    positions = torch.cat([torch.arange(most - n, most) for n, most in spans])
    key_positions = torch.cat([torch.arange(n) for n in key_lengths])
    distance = positions[:, None] - key_positions
    seen = (documents[:, None] == key_documents) & (distance >= 0)
    return seen if window is None else seen & (distance < window)
