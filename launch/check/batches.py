"""What reaches the ranks: tokens, labels and positions; and that documents stay apart.

S tokens of a sequence   s those of this rank's slice
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ropewalk.data.dataset import SequenceRef
from ropewalk.launch.check.line import Line
from ropewalk.launch.check.small_model import VOCABULARY
from ropewalk.launch.check.small_training import SmallTraining
from ropewalk.train.loop import micro_batches
from ropewalk.train.loop.trainer import Trainer

PARTS = {
    "input_ids": ("tokens", "each rank's slice of the sequence, no token twice"),
    "labels": ("labels", "shifted before the slicing: the next token of the same piece"),
    "position_ids": ("positions", "counted through the document, not from each slice's start"),
}
LEAST_MOVED, MOST_LEAKED = 1e-4, 1e-6
"""Nats. A changed token must move the losses of its own document, and no other's."""
WAY_OUT = "do not train; report it with check.json"

Received = list[tuple[list[int], dict[str, np.ndarray]]]
"""Of a rank: the sequences and the arrays of each micro-batch."""


def handed_over_lines(trainer: Trainer, small: SmallTraining) -> list[Line]:
    """Collective. The arguments of the model in step 0, on their devices, put together again."""
    own = []
    for refs in trainer.loader.local_micro_batches(0):
        batch = micro_batches.to_device(trainer.loader.read(refs))
        own.append(([ref.number for ref in refs], _on_host(batch)))
    by_rank = small.ranks.gather(own)
    groups = [
        by_rank[n : n + trainer.mesh.sp_size] for n in range(0, len(by_rank), trainer.mesh.sp_size)
    ]
    return [_part_line(part, groups, small) for part in PARTS] + [_dealt_line(by_rank, trainer)]


def _on_host(batch: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {part: batch[part][0].cpu().numpy() for part in PARTS}


def _part_line(part: str, groups: Sequence[Sequence[Received]], small: SmallTraining) -> Line:
    """One part of all micro-batches; each has one sequence."""
    name, bar = PARTS[part]
    wrong, total, first = 0, 0, ""
    for number, group in enumerate(groups):
        for index, ((sequence,), _) in enumerate(group[0]):
            expected = small.data.expected(sequence, small.restarts_positions())[part]
            received = np.concatenate([rank[index][1][part] for rank in group])[: len(expected)]
            differ = np.flatnonzero(received != expected)
            wrong, total = wrong + len(differ), total + len(expected)
            if len(differ) and not first:
                at = int(differ[0])
                first = (
                    f"; first in sequence {sequence}, token {at}: {received[at]} in place of "
                    f"{expected[at]} (group {number})"
                )
    return Line.judged(
        f"handed over: {name}", not wrong, f"{wrong} of {total:,} wrong{first}", bar, WAY_OUT
    )


def _dealt_line(by_rank: Sequence[Received], trainer: Trainer) -> Line:
    """Every sequence of the batch goes to one group, and all ranks of a group get the same."""
    sp_size = trainer.mesh.sp_size
    dealt = [[numbers for numbers, _ in micro] for micro in by_rank]
    unequal = [n for n in range(len(dealt)) if dealt[n] != dealt[n - n % sp_size]]
    once = sorted(n for rank in dealt[::sp_size] for numbers in rank for n in numbers)
    expected = sorted(trainer.loader.sequence_ids(0))
    dealt_out = f"{len(once)} sequences to {len(dealt) // sp_size} groups of {sp_size}"
    if unequal:
        dealt_out += f"; rank {unequal[0]} reads another sequence than the first of its group"
    return Line.judged(
        "handed over: sequences", not unequal and once == expected, dealt_out, "each once", WAY_OUT
    )


def leak_line(trainer: Trainer, small: SmallTraining) -> Line:
    """Collective. A token of the first document changes; the others' losses must not."""
    name = "documents kept apart"
    if not small.config.data.document_mask:
        return Line.skipped(name, "data.document_mask=false: documents may see one another")
    length, seq_len = small.data.lengths[0][0], small.data.seq_len
    before, after = (_losses(trainer, small, shift, length // 3) for shift in (0, 1))
    moved = np.abs(after - before)[:seq_len]
    own, others = float(moved[:length].max()), moved[length:]
    furthest = int(others.argmax()) + length
    leaked = float(others.max())
    effect = f"it moved its own document's losses by {own:.1e}, the others' by {leaked:.1e}"
    if leaked > MOST_LEAKED:
        effect += f", most at token {furthest}"
    return Line.judged(
        name,
        own > LEAST_MOVED and leaked <= MOST_LEAKED,
        f"a token of the first of {len(small.data.lengths[0])} documents changed: {effect}",
        f"above {LEAST_MOVED:.0e} and within {MOST_LEAKED:.0e} nats",
        WAY_OUT,
    )


def _losses(trainer: Trainer, small: SmallTraining, shift: int, token: int) -> np.ndarray:
    """The loss of each token of sequence 0, (S,), its `token` changed by `shift`."""
    row, mesh = trainer.loader.read([SequenceRef(0, 0)]), trainer.mesh
    ids, low = row.input_ids.copy(), mesh.sp_rank * len(row.input_ids)
    if low <= token < low + len(ids):
        ids[token - low] = (ids[token - low] + shift) % VOCABULARY
    batch = micro_batches.to_device(replace(row, input_ids=ids))
    trainer.engine.module.eval()
    with torch.no_grad():
        trainer.engine(**batch, total_labels=1)
    trainer.engine.module.train()
    losses = small.ranks.gather(trainer.engine.module.nll.float().cpu().numpy())
    first = mesh.dp_rank * mesh.sp_size
    return np.concatenate(losses[first : first + mesh.sp_size])
