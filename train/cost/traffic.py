"""Bytes of a training step: sent between the ranks, and moved through one device's memory.

The collectives are those that DeepSpeed makes with our settings; a test counts every one of them on
real ranks and compares the bytes. ZeRO 1 and 2 all-reduce whole gradients (DeepSpeed's buckets hold
parts of many ranks), ZeRO 3 reduce-scatters them. Not counted: single numbers, and the padding of a
group of parameters to equal parts. Memory traffic is a lower bound: each product reads its operands
and writes its result once.

    W ranks   P ranks of a sequence   S tokens of a rank's row   E hidden size   V vocabulary
    H, K query and key/value heads   D head size
"""

import math
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from ropewalk.train.attention.borders import Ends
from ropewalk.train.attention.sequence_parts import (
    key_heads,
    num_head_groups,
    num_tokens,
    parts_of,
    plan_of_rank,
    query_heads,
)
from ropewalk.train.cost.flops import body_parameters, elements_per_token
from ropewalk.train.model.geometry import head_dim
from ropewalk.train.zero.buffer_sizes import LARGEST_BUCKET, SMALLEST_BUCKET
from ropewalk.train.zero.params import full_shape

FP32 = 4
GATHERED_AT_ONCE = 500_000_000
"""Elements: DeepSpeed's `allgather_bucket_size`."""


@dataclass(frozen=True)
class ModelSizes:
    """The sizes of a model, in elements."""

    parameters: int
    trainable: int
    matrices: int
    """Elements of the matrices that a token passes, without the head."""
    operands: int
    """Inputs and outputs of these products, a token."""
    hidden: int
    vocabulary: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True)
class ParallelLayout:
    """How a model is trained. `tokens`: of one data-parallel group's micro-batch."""

    dp_size: int
    sp_size: int
    zero_stage: int
    accumulation_steps: int
    tokens: int
    element_bytes: int = 2
    """Of weights, gradients and activations: 2 in bf16, 4 in fp32."""
    checkpointing: bool = True
    keeps_exchange: bool = False
    """Whether checkpointed layers keep what Ulysses exchanged, and do not exchange it again."""
    loss_chunk: int = 0
    """Tokens of a chunk of the loss; 0: all at once."""
    document_ends: Ends | None = None
    """0 and the end of each document of the micro-batch; None: it is one document."""

    @property
    def world_size(self) -> int:
        return self.dp_size * self.sp_size

    @property
    def rank_tokens(self) -> int:
        return self.tokens // self.sp_size


@dataclass(frozen=True)
class Collective:
    """`times` a step over `ranks`; `bytes` of the full tensor, in an all-to-all those that a rank
    puts in, on average."""

    kind: str
    tensor: str
    times: int
    bytes: int
    ranks: int
    messages: int = 1
    """In how many parts the tensor is sent, e.g. a layer's weights, or a bucket of gradients."""

    @property
    def payload(self) -> int:
        return self.times * self.bytes

    @property
    def message_bytes(self) -> float:
        """On which the rate of a link depends."""
        return self.bytes / self.messages

    @property
    def rounds(self) -> int:
        """How often a ring passes the tensor around."""
        return 2 if self.kind == "all_reduce" else 1

    @property
    def bytes_sent(self) -> float:
        """Bytes that each rank sends in a ring, or directly: the algorithm that sends least."""
        return self.rounds * self.payload * (self.ranks - 1) / self.ranks


def model_sizes(model: PreTrainedModel) -> ModelSizes:
    """The sizes of a model, which may lie on the meta device."""
    config = model.config
    body = [(full_shape(p), elements_per_token(n, p, config)) for n, p in body_parameters(model)]
    passed = [(shape, elements) for shape, elements in body if elements]
    heads = config.num_attention_heads
    head: torch.Tensor = model.get_output_embeddings().weight  # type: ignore[union-attr, assignment]
    return ModelSizes(
        parameters=sum(full_shape(p).numel() for p in model.parameters()),
        trainable=sum(full_shape(p).numel() for p in model.parameters() if p.requires_grad),
        matrices=sum(elements for _, elements in passed),
        operands=sum(n // math.prod(dims[-2:]) * sum(dims[-2:]) for dims, n in passed),
        hidden=config.hidden_size,
        vocabulary=full_shape(head)[0],
        layers=config.num_hidden_layers,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=head_dim(config),
    )


def collectives(sizes: ModelSizes, layout: ParallelLayout) -> list[Collective]:
    """The collectives of a rank in one step.

    At ZeRO 3 parameters are gathered for each pass: DeepSpeed keeps up to 1e9 elements between two
    passes, so this is an upper bound on what it sends.
    """
    return [*_zero_collectives(sizes, layout), *_attention_collectives(sizes, layout)]


def _zero_collectives(sizes: ModelSizes, layout: ParallelLayout) -> list[Collective]:
    world, steps = layout.world_size, layout.accumulation_steps
    if world == 1:
        return []
    gradients = sizes.trainable * FP32  # summed over the ranks in fp32, whatever their own dtype
    buckets = -(-sizes.trainable // _bucket(sizes))
    if layout.zero_stage == 3:
        weights = sizes.parameters * layout.element_bytes
        return [
            Collective("all_gather", "parameters", 2 * steps, weights, world, sizes.layers),
            Collective("reduce_scatter", "gradients", steps, gradients, world, buckets),
        ]
    reductions = steps if layout.zero_stage == 2 else 1
    result = [Collective("all_reduce", "gradients", reductions, gradients, world, buckets)]
    if layout.zero_stage in (1, 2):
        weights = sizes.trainable * layout.element_bytes
        parts = -(-sizes.trainable // GATHERED_AT_ONCE)
        result.append(Collective("all_gather", "parameters", 1, weights, world, parts))
    return result


def _bucket(sizes: ModelSizes) -> int:
    """Elements of gradients that are reduced at once, as zero/buffer_sizes.py sets them."""
    layer = sizes.matrices // sizes.layers
    return max(1, min(max(layer, SMALLEST_BUCKET), LARGEST_BUCKET))


def _attention_collectives(sizes: ModelSizes, layout: ParallelLayout) -> list[Collective]:
    if layout.sp_size == 1:
        return []
    again = layout.checkpointing and not layout.keeps_exchange
    passes = layout.accumulation_steps * sizes.layers * (2 + again)
    width = sizes.head_dim * layout.element_bytes
    return [
        Collective("all_to_all", tensor, passes, int(count * width), layout.sp_size)
        for tensor, count in _exchanged(sizes, layout).items()
    ]


def _exchanged(sizes: ModelSizes, layout: ParallelLayout) -> dict[str, float]:
    """Tokens x heads that a rank puts into a layer's all-to-alls, on average over the ranks."""
    tokens, ranks = layout.rank_tokens, layout.sp_size
    if sizes.heads % ranks == 0:
        keys: float = math.lcm(sizes.kv_heads, ranks) * tokens  # repeated where there are fewer
    else:
        groups = num_head_groups(sizes.heads, ranks)
        heads = num_tokens(key_heads(sizes.heads, sizes.kv_heads, groups))
        parts = parts_of(_ends(layout), ranks // groups, None)
        keys = heads * sum(num_tokens(part.keys) for part in parts) / ranks
    queries = sizes.heads * tokens
    return {"queries": queries, "keys": keys, "values": keys, "attended": queries}


def _ends(layout: ParallelLayout) -> Ends:
    return layout.document_ends or (0, layout.tokens)


def sent_in_attention(sizes: ModelSizes, layout: ParallelLayout) -> dict[str, float]:
    """Bytes that a rank sends to others in a layer, forward and backward, on average.

    "ours": as `train.sp_size` does it. "ulysses": heads only, as if the ranks divided them. "ring":
    a rank passes the keys and values of its slice on to all others in each direction, and their
    gradients backward (Ring Attention, arXiv 2310.01889), whatever the documents.
    """
    ranks, tokens = layout.sp_size, layout.rank_tokens
    width = sizes.head_dim * layout.element_bytes
    kv_heads = math.lcm(sizes.kv_heads, ranks)
    ulysses = 2 * 2 * (sizes.heads + kv_heads) * tokens * (ranks - 1) / ranks
    ours = ulysses
    if sizes.heads % ranks:
        ours = 2 * sum(_sent(sizes, layout, rank) for rank in range(ranks)) / ranks
    ring = 3 * 2 * sizes.kv_heads * tokens * (ranks - 1)
    return {"ours": ours * width, "ulysses": ulysses * width, "ring": ring * width}


def _sent(sizes: ModelSizes, layout: ParallelLayout, rank: int) -> int:
    """Tokens x heads that `rank` sends to others and gets from others' outputs, forward.

    What it sends as queries comes back as output, and both are counted at this rank.
    """
    groups = num_head_groups(sizes.heads, layout.sp_size)
    plan = plan_of_rank(_ends(layout), layout.sp_size, groups, rank, None)
    sent = 0
    for route, heads in (
        (plan.queries, query_heads(sizes.heads, groups)),
        (plan.keys, key_heads(sizes.heads, sizes.kv_heads, groups)),
    ):
        blocks = [num_tokens(s) * (end - low) for s in route.send for low, end in heads]
        sent += 2 * (sum(blocks) - blocks[rank])
    return sent


def memory_traffic(sizes: ModelSizes, layout: ParallelLayout) -> dict[str, int]:
    """Lower bound on the bytes that one device reads and writes in a step, by what they hold."""
    steps, element = layout.accumulation_steps, layout.element_bytes
    passes, tokens = 2 + layout.checkpointing, layout.rank_tokens * steps
    shards = 1 if layout.zero_stage == 0 else layout.world_size
    q_size, kv_size = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    # forward reads q, k, v and writes o; backward reads them and their gradients and writes three
    attention = sizes.layers * ((passes - 1) * 2 + 4) * (q_size + kv_size)
    chunks = -(-layout.rank_tokens // layout.loss_chunk) if layout.loss_chunk else 1
    head = sizes.vocabulary * sizes.hidden
    checkpoints = tokens * 2 * sizes.layers * sizes.hidden * element
    return {
        "weights": passes * steps * sizes.matrices * element,
        "gradients": steps * sizes.trainable * element,
        # reads and writes masters and two moments in fp32, reads the gradient, writes the weight
        "optimizer": sizes.trainable * (6 * FP32 + 2 * element) // shards,
        "activations": tokens * (sizes.operands * (passes + 1) + attention) * element,
        "checkpoints": checkpoints if layout.checkpointing else 0,
        # each chunk reads the head twice and adds to its gradient; fp32 logits go out and in again
        "head": steps * chunks * head * (2 * element + 2 * FP32)
        + tokens * 3 * sizes.vocabulary * FP32,
    }
