"""An export as datasets, transformers and TRL read it, against the rows of our loader."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plans import packed, written

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.errors import ConfigError
from ropewalk.data import export
from ropewalk.data.loading.packed import DataArtifacts

LENGTHS = [40, 3, 17, 64, 9, 30, 5, 21, 33, 12]


def artifacts_of(folder: Path, **metadata: Any) -> DataArtifacts:
    documents = [1000 * d + np.arange(n) for d, n in enumerate(LENGTHS)]
    return written(folder, documents, packed(LENGTHS, 64), seq_len=64, **metadata)


@pytest.fixture
def artifacts(tmp_path: Path) -> DataArtifacts:
    return artifacts_of(tmp_path)


def pieces(sequences: Any, number: int) -> list[list[int]]:
    row, size = sequences[number], sequences.num_tokens(number)
    return [
        row.input_ids[a:b].tolist()
        for a, b in zip(row.cu_seqlens, row.cu_seqlens[1:], strict=False)
        if a < size
    ]


def load(folder: Path, cache: Path) -> Any:
    from datasets import load_dataset

    return load_dataset("parquet", data_dir=str(folder), cache_dir=str(cache))["train"]


def test_the_loss_of_transformers_on_a_row_is_that_of_its_documents(
    artifacts: DataArtifacts, tmp_path: Path
) -> None:
    """transformers derives the borders from the positions and shifts the labels."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=10_000,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    export.write(artifacts, tmp_path / "out")
    rows = load(tmp_path / "out", tmp_path / "cache")
    names = ("input_ids", "labels", "position_ids")
    row = {name: torch.tensor(rows[0][name])[None] for name in names}
    texts = pieces(artifacts.sequences(), 0)
    assert len(texts) > 1
    with torch.no_grad():
        loss = model(**row, use_cache=False).loss * sum(len(t) - 1 for t in texts)
        documents = [torch.tensor(t)[None] for t in texts if len(t) > 1]
        expected = sum(model(input_ids=t, labels=t).loss * (t.shape[1] - 1) for t in documents)
    torch.testing.assert_close(loss, expected, atol=1e-3, rtol=1e-5)


def test_parquet_holds_every_sequence_without_padding(
    artifacts: DataArtifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several files and row groups, in order."""
    monkeypatch.setattr(export, "FILE_TOKENS", 130)
    monkeypatch.setattr(export, "GROUP_TOKENS", 64)
    export.write(artifacts, tmp_path / "out")
    rows, sequences = load(tmp_path / "out", tmp_path / "cache"), artifacts.sequences()
    names = sorted(p.name for p in (tmp_path / "out" / "data").iterdir())
    assert len(names) > 1
    assert names == [f"train-{n:05}-of-{len(names):05}.parquet" for n in range(len(names))]
    assert len(rows) == len(sequences)
    for number, row in enumerate(rows):
        texts = pieces(sequences, number)
        assert row["input_ids"] == sum(texts, [])
        assert row["attention_mask"] == [1] * len(row["input_ids"])
        assert row["seq_lengths"] == list(map(len, texts))
        assert row["labels"] == [x for t in texts for x in [-100, *t[1:]]]
        assert row["position_ids"] == [i for t in texts for i in range(len(t))]


def test_trl_collates_the_rows_of_our_loader(artifacts: DataArtifacts, tmp_path: Path) -> None:
    """TRL's padding-free collator against our rows without their padding."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    export.write(artifacts, tmp_path / "out")
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    for number, row in enumerate(load(tmp_path / "out", tmp_path / "cache")):
        batch, ours = collate([row]), artifacts.sequences()[number]
        size = len(row["input_ids"])
        assert batch["input_ids"][0].tolist() == ours.input_ids[:size].tolist()
        assert batch["position_ids"][0].tolist() == ours.position_ids[:size].tolist()
        # transformers shifts the labels of the batch, ours are shifted
        assert batch["labels"][0, 1:].tolist() == ours.labels[: size - 1].tolist()
        assert batch["cu_seq_lens_q"].tolist() == [b for b in ours.cu_seqlens.tolist() if b <= size]


def test_without_the_mask_a_row_attends_to_all_of_itself(tmp_path: Path) -> None:
    artifacts = artifacts_of(tmp_path, document_mask=False, positions="continue")
    export.write(artifacts, tmp_path / "out")
    for row in load(tmp_path / "out", tmp_path / "cache"):
        assert row["seq_lengths"] == [len(row["input_ids"])]
        assert row["position_ids"] == list(range(len(row["input_ids"])))


def test_an_export_is_written_once_and_again_for_another_plan(
    artifacts: DataArtifacts, tmp_path: Path
) -> None:
    first, message = export.write(artifacts, tmp_path / "out")
    assert "done in" in message and first.facts["sequences"] == len(artifacts.sequences())
    assert "skipped" in export.write(artifacts, tmp_path / "out")[1]
    other = written(tmp_path / "b", [np.arange(9)], [[(0, 0, 9)]], seq_len=9)
    other = replace(other, plan=other.plan.rename(other.plan.with_name("other")))
    assert "redone: plan was" in export.write(other, tmp_path / "out")[1]
    assert len(load(tmp_path / "out", tmp_path / "cache")) == 1


def test_a_folder_with_other_files_is_refused(artifacts: DataArtifacts, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    message = r"^--export is mine; it must be new, empty or an earlier export; give another"
    with pytest.raises(ConfigError, match=message):
        export.write(artifacts, tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


OTHERS = {
    "a finished stage": lambda path: manifest.run_stage("data", {"plan": "x"}, path, lambda _: {}),
    "a model's export": lambda path: manifest.run_stage(
        "export", {"inputs": {}, "form": 1}, path, lambda _: {}
    ),
    "a foreign manifest": lambda path: (
        path.mkdir(),
        (path / "manifest.json").write_text('{"name": "an extension"}'),
    ),
    "a file": lambda path: path.write_text("mine"),
}


def content(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("occupant", OTHERS)
def test_other_stages_and_files_are_not_overwritten(
    artifacts: DataArtifacts, tmp_path: Path, occupant: str
) -> None:
    OTHERS[occupant](tmp_path / "mine")  # type: ignore[no-untyped-call]
    before = content(tmp_path)
    message = r"^--export is mine; it must be new, empty or an earlier export; [^\n]*$"
    with pytest.raises(ConfigError, match=message):
        export.write(artifacts, tmp_path / "mine")
    assert content(tmp_path) == before


def test_the_folder_of_an_export_is_resolved(
    artifacts: DataArtifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"^--export is {tmp_path.name}; "):
        export.write(artifacts, Path("."))
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    export.write(artifacts, Path("link"))
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "data").is_dir()


POSE = (
    r"^data\.pose\.target_length is 128; other programs take skipped positions for a .*; unset it"
)
CONTINUE = r"^data\.positions is continue; .*_mask is true; set data\.positions=restart to export"
RESTART = r"^data\.positions is restart; .*_mask is false; set data\.positions=continue to export"


@pytest.mark.parametrize(
    ("mask", "positions", "pose", "message"),
    [
        (True, "restart", 128, POSE),
        (True, "continue", None, CONTINUE),
        (False, "restart", None, RESTART),
    ],
)
def test_plans_that_other_programs_would_misread_are_refused(
    tmp_path: Path, mask: bool, positions: str, pose: int | None, message: str
) -> None:
    artifacts = artifacts_of(tmp_path, document_mask=mask, positions=positions)
    if pose is not None:
        artifacts = replace(artifacts, pose={"target_length": pose, "chunks": 2, "seed": 0})
    with pytest.raises(ConfigError, match=message):
        export.write(artifacts, tmp_path / "out")
    assert not (tmp_path / "out").exists()
