"""Bytes of a training step by arithmetic: what the ranks send one another, and what one device moves through its memory.

Collectives are those that DeepSpeed makes with our settings: a test sees every one of them on real ranks and compares the bytes. ZeRO 1 and
2 all-reduce whole gradients (DeepSpeed's buckets hold parts of many ranks), ZeRO 3 reduce-scatters them. Not counted: single numbers, and
the padding of a group of parameters to equal parts. Memory is a lower bound: each product reads its operands and writes its outcome once.

    N ranks   P ranks of a sequence   S tokens of a rank's row   E hidden size   V vocabulary   H, K query and key/value heads   D head size
"""

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from ropewalk.train.cost.flops import per_token, shape

FP32 = 4


@dataclass(frozen=True)
class Sizes:
    """What a model is, in elements."""

    parameters: int
    trainable: int
    matrices: int  # that a token passes, without the head
    ends: int  # inputs and outcomes of those products, a token
    hidden: int
    vocabulary: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True)
class ParallelLayout:
    """How it is trained. `micro_steps` are accumulated; `tokens`: of one data-parallel group's micro-batch."""

    dp_size: int
    sp_size: int
    zero_stage: int
    micro_steps: int
    tokens: int
    element: int = 2  # bytes of weights, gradients and activations: 2 in bf16, 4 in fp32
    checkpointing: bool = True
    chunk: int = 0  # tokens of a chunk of the loss; 0: all at once

    @property
    def ranks(self) -> int:
        return self.dp_size * self.sp_size

    @property
    def own_tokens(self) -> int:
        return self.tokens // self.sp_size


@dataclass(frozen=True)
class Collective:
    """`times` a step, over `ranks`; `bytes`: of the whole tensor (of a rank's own buffer in an all-to-all)."""

    kind: str
    what: str
    times: int
    bytes: int
    ranks: int

    @property
    def payload(self) -> int:
        return self.times * self.bytes

    @property
    def sent(self) -> float:
        """Bytes that each rank sends by the algorithm that sends least: a ring, or each part straight to its rank."""
        rounds = 2 if self.kind == "all_reduce" else 1
        return rounds * self.payload * (self.ranks - 1) / self.ranks


def sizes(model: Any) -> Sizes:
    """Of a model, which may lie on the meta device."""
    config, head = model.config, model.get_output_embeddings()
    apart = {
        id(p)
        for m in model.modules()
        if isinstance(m, nn.Embedding) or m is head
        for p in m.parameters()
    }
    counts = [
        (shape(p), per_token(n, p, config))
        for n, p in model.named_parameters()
        if id(p) not in apart
    ]
    passed = [(whole, count) for whole, count in counts if count]
    heads = config.num_attention_heads
    return Sizes(
        parameters=sum(math.prod(shape(p)) for p in model.parameters()),
        trainable=sum(math.prod(shape(p)) for p in model.parameters() if p.requires_grad),
        matrices=sum(count for _, count in passed),
        ends=sum(count // math.prod(whole[-2:]) * sum(whole[-2:]) for whole, count in passed),
        hidden=config.hidden_size,
        vocabulary=shape(head.weight)[0],
        layers=config.num_hidden_layers,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
    )


def communication(of: Sizes, at: ParallelLayout) -> list[Collective]:
    """A rank's collectives of one step. At ZeRO 3 parameters are gathered for each pass: DeepSpeed keeps up to 1e9 elements between two,
    so what it sends is at most this."""
    gradients = (
        of.trainable * FP32
    )  # they are summed over the ranks in fp32, whatever they were made in
    weights = of.parameters * at.element
    found = []
    if at.ranks > 1:
        if at.zero_stage < 3:
            reductions = at.micro_steps if at.zero_stage == 2 else 1
            found.append(Collective("all_reduce", "gradients", reductions, gradients, at.ranks))
        if at.zero_stage in (1, 2):
            found.append(
                Collective("all_gather", "parameters", 1, of.trainable * at.element, at.ranks)
            )
        if at.zero_stage == 3:
            found.append(
                Collective("all_gather", "parameters", 2 * at.micro_steps, weights, at.ranks)
            )
            found.append(
                Collective("reduce_scatter", "gradients", at.micro_steps, gradients, at.ranks)
            )
    if at.sp_size > 1:
        passes = at.micro_steps * of.layers * (3 if at.checkpointing else 2)
        shared = math.lcm(of.kv_heads, at.sp_size)  # repeated where they are too few
        for what, heads in (
            ("queries", of.heads),
            ("keys", shared),
            ("values", shared),
            ("attended", of.heads),
        ):
            own = at.own_tokens * heads * of.head_dim * at.element
            found.append(Collective("all_to_all", what, passes, own, at.sp_size))
    return found


def memory(of: Sizes, at: ParallelLayout) -> dict[str, int]:
    """Bytes that one device reads and writes in a step, at least, by what they are."""
    passes, rows = 2 + at.checkpointing, at.own_tokens * at.micro_steps
    shards = 1 if at.zero_stage == 0 else at.ranks
    wide, narrow = of.heads * of.head_dim, of.kv_heads * of.head_dim
    # forward reads q, k, v and writes o; backward reads them and their gradients and writes three
    attention = of.layers * ((passes - 1) * 2 * (wide + narrow) + 4 * (wide + narrow))
    chunks = -(-at.own_tokens // at.chunk) if at.chunk else 1
    head = of.vocabulary * of.hidden
    return {
        "weights": passes * at.micro_steps * of.matrices * at.element,
        "gradients": at.micro_steps * of.trainable * at.element,
        # masters and two moments are read and written in fp32, the gradient is read, the weight written
        "optimizer": (of.trainable * (6 * FP32 + 2 * at.element)) // shards,
        "activations": rows * (of.ends * (passes + 1) + attention) * at.element,
        "checkpoints": rows * 2 * of.layers * of.hidden * at.element if at.checkpointing else 0,
        # each chunk reads the head twice and adds to its gradient in fp32; its logits are written and read in fp32
        "head": at.micro_steps * chunks * head * (2 * at.element + 2 * FP32)
        + rows * 3 * of.vocabulary * FP32,
    }
