"""Headers of .safetensors files; the oracle is safetensors' own reader."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ropewalk.train.weights.headers import DamagedFile, read_header
from ropewalk.train.weights.values import sample

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn),
    *(torch.float8_e5m2, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
    torch.bool,
)


def written(content: bytes | str, data: bytes = b"") -> bytes:
    header = content.encode() if isinstance(content, str) else content
    return len(header).to_bytes(8, "little") + header + data


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


WHOLE = {"a": entry("F32", [2], 0, 8), "b": entry("F32", [1], 8, 12)}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    tensors = {str(d): torch.ones(3, 5).to(d) for d in DTYPES} | {"scalar": torch.tensor(1.0)}
    save_file(tensors, str(tmp_path / "good.safetensors"), metadata={"format": "pt"})
    return tmp_path / "good.safetensors"


def test_names_dtypes_and_shapes_are_those_of_the_formats_reader(good: Path) -> None:
    header = read_header(good)
    with safe_open(good, "pt") as file:
        slices = {name: file.get_slice(name) for name in read_header(good)}
        assert {*slices} == {*file.keys()}
        expected = {n: (s.get_dtype(), tuple(s.get_shape())) for n, s in slices.items()}
    assert {name: (t.dtype, t.shape) for name, t in header.items()} == expected


def test_the_bytes_of_a_tensor_are_its_values(good: Path) -> None:
    tensor = read_header(good)["torch.bfloat16"]
    content = good.read_bytes()[tensor.start : tensor.end]
    assert torch.frombuffer(bytearray(content), dtype=torch.bfloat16).tolist() == [1.0] * 15


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\x08\0\0", "no safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"PK\x03\x04" + bytes(60), "no safetensors file"),
        (written(json.dumps(WHOLE), bytes(11)), "is truncated: "),
        (written(json.dumps(WHOLE), bytes(13)), "1 bytes after its last tensor"),
        (written(json.dumps(WHOLE))[:40], "is truncated"),
        (written("{}"), "has no tensors"),
        (written('{"a": 1}', bytes(4)), "damaged header (a: "),
        (written("{nonsense}", bytes(4)), "damaged header"),
        (written(b'{"\xff": 1}', bytes(4)), "damaged header"),
        (written(json.dumps({"a": entry("F31", [1], 0, 4)}), bytes(4)), "F31"),
        (written(json.dumps({"a": entry("F32", [2], 0, 4)}), bytes(4)), "4 bytes for F32 [2]"),
        (written(json.dumps({"a": entry("F32", [-1], 0, -4)}), bytes(4)), "damaged header (a: "),
        (written(json.dumps({**WHOLE, "b": entry("F32", [1], 9, 13)}), bytes(13)), "b begins at"),
        (written(json.dumps({**WHOLE, "b": entry("F32", [1], 4, 8)}), bytes(8)), "b begins at"),
        (written('{"a": 1, "a": 2}', bytes(4)), "a is there twice"),
    ],
)
def test_damage_is_named_with_a_way_out(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(DamagedFile) as damaged:
        read_header(file)
    assert reason in str(damaged.value) and "; " in str(damaged.value)
    if reason != "has no tensors":
        with pytest.raises(SafetensorError), safe_open(file, "pt") as reader:
            reader.keys()


def test_files_that_cannot_be_opened_are_named(tmp_path: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "nowhere")
    for file in tmp_path.iterdir():
        with pytest.raises(DamagedFile, match="cannot be read"):
            read_header(file)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("position", [0, 2**20 + 5, -1])
def test_one_value_is_seen_at_any_position(
    tmp_path: Path, dtype: torch.dtype, value: float, position: int
) -> None:
    large = torch.full((2**20 + 77,), torch.finfo(dtype).max, dtype=dtype)  # sums would overflow
    bad = large.clone()
    bad[position] = value
    assert not bad.isfinite().all() and large.isfinite().all()
    save_file({"bad": bad, "large": large}, str(tmp_path / "file"))
    assert sample(read_header(tmp_path / "file")).not_finite == ["bad"]


def test_a_sample_is_bounded_and_spread_evenly(tmp_path: Path) -> None:
    """Of 64 blocks of 1 MiB four are read: the first, the last, and two between."""
    values = torch.ones(64, 2**18)
    for block, seen in ((0, True), (21, True), (42, True), (63, True), (1, False), (30, False)):
        tensors = {"a": values.clone()}
        tensors["a"][block, 7] = torch.nan
        save_file(tensors, str(tmp_path / "file"))
        result = sample(read_header(tmp_path / "file"), sample_bytes=4 << 20)
        assert result.not_finite == ["a"] * seen


def test_matrices_of_zeros_only_are_seen(tmp_path: Path) -> None:
    """A vector may be: the bias of a new model, or Gemma's norms, which count from 1."""
    tensors = {"a": torch.zeros(3, 4), "b": torch.zeros(3), "c": torch.zeros(3, 4)}
    tensors["c"][1, 1] = -1e-30
    save_file(tensors, str(tmp_path / "file"))
    assert sample(read_header(tmp_path / "file")).zeros == ["a"]
