"""Document-masked causal attention, one interface for CPU and GPU; no (S, S) mask is ever built.

    backend.py         chooses the kernel, says why, and registers it with transformers
    kernels.py         the GPU's kernels: functions and heads (packages: train/kernel_packages.py)
    support.py         what a model requires of its attention; which models are refused
    flash.py           flash-attn 2, 3 and 4, and torch's varlen_attn
    document_runs.py   which documents share a call, where one is far longer than others
    sdpa.py            each document alone through torch's SDPA
    prefix.py          queries that see keys before them, for SDPA
    shared_context.py  questions about one context, which is computed once
    sliding_window.py  sliding windows in blocks, for SDPA
    sinks.py           attention sinks as one more key, for SDPA
    s2_attn.py         S2-Attn (shifted sparse attention) around any kernel
    ulysses.py         Ulysses sequence parallelism around any kernel
    sequence_parts.py  who attends to what where the ranks do not divide the heads
    part_exchange.py   the exchange that brings it there
    borders.py         borders of documents, once a step; what every kernel refuses in a call
    kernel_proof.py    proof that the kernel computes attention on this device
    isolation.py       proof that a model keeps documents apart

A kernel is a function of transformers' attention signature:
`(module, query (1, H, S, D), key (1, K, S, D), value (1, K, S, E), attention_mask, *, scaling,
dropout, sliding_window, s_aux, cu_seqlens, document_ends, max_seqlen, **kwargs)
-> ((1, S, H, E), None)`.
Under sequence parallelism S, and the borders, are those of the whole sequence. Where a kernel also
gets `key_borders`, keys and values are U tokens with these borders, and the queries of a document
are the last of its keys.
"""

from ropewalk.train.attention.backend import (
    describe,
    kernel_for_dtype,
    refuse_missing,
    register,
)
from ropewalk.train.attention.borders import document_borders
from ropewalk.train.attention.isolation import prove_documents_isolated
from ropewalk.train.attention.kernel_proof import prove_kernel
from ropewalk.train.attention.support import refuse_unsupported, requirements_of

__all__ = [
    "describe",
    "document_borders",
    "kernel_for_dtype",
    "prove_documents_isolated",
    "prove_kernel",
    "refuse_missing",
    "refuse_unsupported",
    "register",
    "requirements_of",
]
