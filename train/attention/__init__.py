"""Document-masked causal attention, one interface for CPU and GPU; no (S x S) mask is ever built.

    choice.py       which kernel, and why no better one       layout.py     borders of documents, computed once a step
    kernels.py      flash-attn 2, 3, 4, torch's varlen_attn   windows.py    sliding windows in blocks, for SDPA
    per_document.py each document alone through torch's SDPA  sinks.py      attention sinks as one more key, for SDPA
    shifted.py      S2-Attn around any of them                handled.py    what every kernel refuses
    fit.py          what a model asks of its attention        leaks.py      proof that documents are kept apart in a model

A kernel is a function of transformers' signature:
`(module, query (1, H, S, D), key (1, K, S, D), value (1, K, S, E), mask, *, scaling, dropout, sliding_window, s_aux, cu_seqlens,
document_ends, max_seqlen, ...) -> ((1, S, H, E), None)`. Under sequence parallelism S, and the borders, are those of the whole sequence.
"""

from ropewalk.train.attention.backend import describe, no_mask, of_dtype, register
from ropewalk.train.attention.borders import borders
from ropewalk.train.attention.flash import flash, flash3, flash4, varlen
from ropewalk.train.attention.isolation import prove_documents_isolated
from ropewalk.train.attention.sdpa import sdpa
from ropewalk.train.attention.support import Requirements, refuse_unsupported, requirements_of

__all__ = [
    "Requirements",
    "borders",
    "flash",
    "flash3",
    "flash4",
    "requirements_of",
    "no_mask",
    "of_dtype",
    "prove_documents_isolated",
    "refuse_unsupported",
    "register",
    "sdpa",
    "describe",
    "varlen",
]
