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

from ropewalk.train.cost.flops import body_parameters, elements_per_token
from ropewalk.train.model.geometry import head_dim
from ropewalk.train.zero.params import full_shape

FP32 = 4


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
    loss_chunk: int = 0
    """Tokens of a chunk of the loss; 0: all at once."""

    @property
    def world_size(self) -> int:
        return self.dp_size * self.sp_size

    @property
    def rank_tokens(self) -> int:
        return self.tokens // self.sp_size


@dataclass(frozen=True)
class Collective:
    """`times` a step over `ranks`; `bytes` of the full tensor, in an all-to-all of a rank's own."""

    kind: str
    tensor: str
    times: int
    bytes: int
    ranks: int

    @property
    def payload(self) -> int:
        return self.times * self.bytes

    @property
    def bytes_sent(self) -> float:
        """Bytes that each rank sends in a ring, or directly: the algorithm that sends least."""
        rounds = 2 if self.kind == "all_reduce" else 1
        return rounds * self.payload * (self.ranks - 1) / self.ranks


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
    return [*_zero_collectives(sizes, layout), *_ulysses_collectives(sizes, layout)]


def _zero_collectives(sizes: ModelSizes, layout: ParallelLayout) -> list[Collective]:
    world, steps = layout.world_size, layout.accumulation_steps
    if world == 1:
        return []
    gradients = sizes.trainable * FP32  # summed over the ranks in fp32, whatever their own dtype
    if layout.zero_stage == 3:
        weights = sizes.parameters * layout.element_bytes
        return [
            Collective("all_gather", "parameters", 2 * steps, weights, world),
            Collective("reduce_scatter", "gradients", steps, gradients, world),
        ]
    reductions = steps if layout.zero_stage == 2 else 1
    result = [Collective("all_reduce", "gradients", reductions, gradients, world)]
    if layout.zero_stage in (1, 2):
        weights = sizes.trainable * layout.element_bytes
        result.append(Collective("all_gather", "parameters", 1, weights, world))
    return result


def _ulysses_collectives(sizes: ModelSizes, layout: ParallelLayout) -> list[Collective]:
    if layout.sp_size == 1:
        return []
    passes = layout.accumulation_steps * sizes.layers * (3 if layout.checkpointing else 2)
    kv_heads = math.lcm(sizes.kv_heads, layout.sp_size)  # repeated where there are fewer than ranks
    heads = {"queries": sizes.heads, "keys": kv_heads, "values": kv_heads, "attended": sizes.heads}
    head_bytes = layout.rank_tokens * sizes.head_dim * layout.element_bytes
    return [
        Collective("all_to_all", tensor, passes, count * head_bytes, layout.sp_size)
        for tensor, count in heads.items()
    ]


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
