"""Document-masked causal attention, one interface for CPU and GPU; no (S x S) mask is ever built.

    register    choose a kernel, hand it to transformers, name it    layout.py      borders of documents, computed once a step
    sdpa        each document alone through torch's SDPA             kernels.py     flash-attn 2, 3, 4 and torch's varlen_attn

A kernel is a function of transformers' signature:
`(module, query (1, H, S, D), key (1, K, S, D), value (1, K, S, E), mask, *, scaling, dropout, sliding_window, s_aux, cu_seqlens,
document_ends, max_seqlen, ...) -> ((1, S, H, E), None)`. Under sequence parallelism S, and the borders, are those of the whole sequence.
"""

from ropewalk.train.attention.choice import no_mask, register, told
from ropewalk.train.attention.kernels import flash, flash3, flash4, varlen
from ropewalk.train.attention.layout import borders
from ropewalk.train.attention.per_document import sdpa

__all__ = ["borders", "flash", "flash3", "flash4", "no_mask", "register", "sdpa", "told", "varlen"]
