"""The loss on a plan's sequences, through the real loader and kernel, against each piece alone in
plain transformers.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import packed_pass
import pytest
import torch
import torch.nn.functional as F
from models import documents, tiny_model
from plans import packed, written

from ropewalk.data.loading.packed import DataArtifacts, PackedSequences
from ropewalk.train import attention

LENGTHS = [50, 3, 17, 100, 9, 30, 5, 1, 21, 33, 12, 64]
SEQ_LEN = 64


def planned(
    folder: Path, packer: str, **facts: Any
) -> tuple[DataArtifacts, list[list[tuple[int, int, int]]]]:
    rows = packed(LENGTHS, SEQ_LEN, packer=packer)
    return written(folder, documents(LENGTHS), rows, seq_len=SEQ_LEN, **facts), rows


def read_loss(model: Any, sequences: PackedSequences) -> list[float]:
    """Sum of the losses of each sequence, under the attention of train and eval."""
    model.set_attn_implementation(attention.register("sdpa"))
    rows = [sequences[number] for number in range(len(sequences))]
    return [float(packed_pass.losses(model, row).double().sum()) for row in rows]


def loss_alone(model: Any, ids: np.ndarray, positions: np.ndarray | None = None) -> float:
    """Transformers' eager attention on one piece, under an explicit causal mask."""
    model.set_attn_implementation("eager")
    count = len(ids)
    mask = torch.full((count, count), float("-inf")).triu(1)[None, None]
    positions = np.arange(count) if positions is None else positions
    with torch.no_grad():
        logits = model(
            input_ids=torch.from_numpy(ids)[None],
            position_ids=torch.from_numpy(positions)[None],
            attention_mask=mask,
            use_cache=False,
        ).logits[0]
    return float(F.cross_entropy(logits[:-1].double(), torch.from_numpy(ids)[1:], reduction="sum"))


def expected_losses(model: Any, rows: list[list[tuple[int, int, int]]]) -> list[float]:
    texts = documents(LENGTHS)
    return [sum(loss_alone(model, texts[d][s : s + n]) for d, s, n in row) for row in rows]


@pytest.mark.parametrize("packer", ["window_fill", "best_fit", "concat"])
def test_losses_are_those_of_the_documents_alone(tmp_path: Path, packer: str) -> None:
    model = tiny_model()
    folders, rows = planned(tmp_path, packer)
    assert max(map(len, rows)) > 2
    assert read_loss(model, folders.sequences()) == pytest.approx(
        expected_losses(model, rows), rel=1e-5
    )


def test_positions_that_go_on_change_nothing_under_the_mask_but_rounding(tmp_path: Path) -> None:
    """RoPE depends on distances alone, and the mask leaves only distances inside a piece."""
    model = tiny_model()
    folders, rows = planned(tmp_path, "window_fill", positions="continue")
    result, expected = read_loss(model, folders.sequences()), expected_losses(model, rows)
    assert result == pytest.approx(expected, rel=1e-4)
    assert result != expected


def test_without_the_mask_the_documents_before_are_read_too(tmp_path: Path) -> None:
    """The comparison above can fail."""
    model = tiny_model()
    folders, rows = planned(tmp_path, "window_fill", positions="continue", document_mask=False)
    result, expected = read_loss(model, folders.sequences()), expected_losses(model, rows)
    packed_rows = [n for n, row in enumerate(rows) if len(row) > 1]
    assert all(abs(result[n] / expected[n] - 1) > 1e-3 for n in packed_rows)


def test_skipped_positions_give_the_loss_of_each_document_at_those_positions(
    tmp_path: Path,
) -> None:
    """PoSE: transformers itself would take a skip for a border; ours attends across it."""
    model = tiny_model()
    folders, rows = planned(tmp_path, "window_fill")
    sequences = replace(folders, pose={"target_length": 512, "chunks": 2, "seed": 0}).sequences()
    texts, expected = documents(LENGTHS), []
    for number, row in enumerate(rows):
        positions = sequences[number].position_ids
        starts = np.cumsum([0, *(n for _, _, n in row)])
        expected.append(
            sum(
                loss_alone(model, texts[d][s : s + n], positions[a : a + n])
                for (d, s, n), a in zip(row, starts, strict=False)
            )
        )
    assert read_loss(model, sequences) == pytest.approx(expected, rel=1e-4)
    assert expected != pytest.approx(expected_losses(model, rows), rel=1e-3)
