"""Files are written tensor by tensor, with the bytes that transformers writes; empty is refused."""

from pathlib import Path
from typing import Any

import pytest
import ranks
import save_ranks
import torch
from models import tiny_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ropewalk.train.weights import safetensors_file

SINGLE, SHARDS = "50GB", "20KB"
FORMS = [
    *[(kind, size) for kind in ("llama", "gemma", "gpt-oss", "fused") for size in (SINGLE, SHARDS)],
    *[(kind, SINGLE) for kind in ("mixtral", "deepseek v3")],
]
"""Untied, tied, stacked experts, two parameters in one tensor of the files; a stored buffer."""


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    ranks.run(1, save_ranks.export_all, str(folder / "full"), FORMS, False)
    ranks.run(2, save_ranks.export_all, str(folder / "partitioned"), FORMS, True)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("form", ["full", "partitioned"])
@pytest.mark.parametrize(("kind", "size"), FORMS)
def test_the_files_are_those_of_transformers(
    tmp_path: Path, exports: Path, form: str, kind: str, size: str
) -> None:
    save_ranks.saved_model(kind).save_pretrained(str(tmp_path), max_shard_size=size)
    result, expected = contents(exports / form / kind / size), contents(tmp_path)
    assert result.keys() == expected.keys()
    assert [name for name in expected if result[name] != expected[name]] == []
    assert (len(result) > 4) == (size == SHARDS)


def test_shards_of_experts_hold_what_transformers_writes(tmp_path: Path) -> None:
    """transformers counts one expert of a layer only, and its shards exceed their size."""
    ranks.run(2, save_ranks.export_all, str(tmp_path), [("mixtral", SHARDS)], True)
    save_ranks.saved_model("mixtral").save_pretrained(str(tmp_path / "expected"))
    files = list((tmp_path / "mixtral" / SHARDS).glob("*.safetensors"))
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    expected = load_file(tmp_path / "expected" / "model.safetensors")
    assert len(files) > 2 and tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_loads_as_it_was(exports: Path, tied: bool) -> None:
    folder = exports / "partitioned" / ("gemma" if tied else "llama") / SHARDS
    result = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    expected = save_ranks.model_of("gemma" if tied else "llama").state_dict()
    assert set(result) == set(expected)
    assert all(torch.equal(result[name], expected[name]) for name in expected)


def test_no_rank_holds_more_than_a_tensor(tmp_path: Path) -> None:
    shape: dict[str, Any] = {"hidden_size": 512, "intermediate_size": 4096, "vocab_size": 8192}
    shape["num_hidden_layers"] = 4
    growth = ranks.run(2, save_ranks.growth_of_export, str(tmp_path), shape)
    sizes = [p.numel() * 4 / 2**20 for p in tiny_model(**shape).parameters()]
    assert max(growth) < 2 * max(sizes) + 8 < sum(sizes) / 2, (growth, sum(sizes))


@pytest.mark.parametrize("seed", range(3))
def test_a_file_has_the_bytes_of_the_library(tmp_path: Path, seed: int) -> None:
    """Of any dtypes and shapes, written in any order."""
    generator = torch.Generator().manual_seed(seed)
    dtypes = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]
    shapes = [(), (3,), (2, 5), (0, 4), (1, 2, 3)]
    tensors = {
        f"layer.{number}.ä": torch.randint(0, 2, shape, generator=generator).to(dtype)
        for number, (dtype, shape) in enumerate((d, s) for d in dtypes for s in shapes)
    }
    save_file(tensors, tmp_path / "expected", metadata={"format": "pt"})
    meta = {name: tensor.to("meta") for name, tensor in tensors.items()}
    places = safetensors_file.create(tmp_path / "result", meta)
    names = list(tensors)
    for index in torch.randperm(len(names), generator=generator).tolist():
        safetensors_file.write(places[names[index]], tensors[names[index]])
    assert (tmp_path / "result").read_bytes() == (tmp_path / "expected").read_bytes()


def test_an_empty_tensor_is_refused_by_name() -> None:
    (message,) = ranks.run(1, save_ranks.error_of_empty_weight)
    assert message.startswith(
        "RopewalkError: b.weight is empty, and 0 more; a saved model must have whole tensors"
    )
