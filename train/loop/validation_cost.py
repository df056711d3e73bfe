"""How often to validate, from the FLOPs of a validation and of a training step."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedModel

from ropewalk.conf.schema import Config
from ropewalk.data.dataset import PackedSequences
from ropewalk.train.cost.flops import ModelCost, model_cost
from ropewalk.train.loop.key_value import Pass
from ropewalk.train.zero.mesh import Mesh

SHARE = 0.04
"""Of the training's FLOPs, at most."""
MIN_INTERVAL = 50
SAMPLED = 64
"""Sequences of the plan whose documents stand for those of all."""


def interval(
    model: PreTrainedModel,
    config: Config,
    windows: Sequence[np.ndarray],
    passes: Sequence[Pass],
    sequences: PackedSequences,
    mesh: Mesh,
) -> int:
    """The fewest steps, at least 50, between validations of at most 4% of the training's FLOPs.

    Groups without a window of their own wait for those with one, and count as busy.
    """
    cost, groups = model_cost(model), mesh.dp_size
    of_windows = _rounds(len(windows), groups) * _mean([_forward(cost, w) for w in windows])
    of_passes = _rounds(len(passes), groups) * _mean([_answers(cost, p) for p in passes])
    step = _training(cost, sequences) * config.batches()[0][2] / sequences.seq_len
    return max(MIN_INTERVAL, int(np.ceil((of_windows + of_passes) / (SHARE * step))))


def _rounds(count: int, groups: int) -> int:
    """Passes of all groups, where each makes as many as the busiest."""
    return -(-count // groups) * groups


def _mean(values: Sequence[int]) -> float:
    return sum(values) / max(1, len(values))


def _forward(cost: ModelCost, window: np.ndarray) -> int:
    return cost.forward_flops([len(window)], len(window) - 1)


def _answers(cost: ModelCost, asked: Pass) -> int:
    """As of one document: later questions see no more keys than they would in it."""
    labels = sum(len(question.answer) for question in asked.questions)
    return cost.forward_flops([sum(map(len, asked.documents()))], labels)


def _training(cost: ModelCost, sequences: PackedSequences) -> float:
    """FLOPs of training on one sequence, the mean of some."""
    numbers = range(0, len(sequences), max(1, len(sequences) // SAMPLED))
    lengths = [(sequences.piece_sources(n)[0].tolist(), sequences.num_labels(n)) for n in numbers]
    return _mean([cost.training_flops(pieces, labels) for pieces, labels in lengths])
