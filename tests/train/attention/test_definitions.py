"""Calls of kernels bound to the definitions in the packages' own sources, by version.

A call by position, or a name that a version lacks, fails here and not at the first layer on a GPU.
"""

import hashlib
import inspect
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import kernel_definitions
import pytest
import torch
from oracle import cu_seqlens, heads
from packaging.requirements import Requirement
from stand_ins import Calls
from torch.nn.attention.varlen import varlen_attn

from ropewalk.train import attention
from ropewalk.train.attention import flash as kernels
from ropewalk.train.attention.kernels import GPU_KERNELS, heads_of_flash4
from ropewalk.train.attention.support import Requirements

TORCH = {"kernel": "varlen", "versions": torch.__version__}
FLASH = [row for name in ("flash", "flash3", "flash4") for row in kernel_definitions.recorded(name)]
EXTRAS = {"flash": "flash-attn", "flash4": "flash-attn-4"}
WINDOW = 5


def row_name(row: dict[str, Any]) -> str:
    versions = list(row.get("sha256", {})) or [c[:7] for c in row.get("commits", [])]
    return f"{row['kernel']} {versions[0] if versions else torch.__version__}"


def bound_arguments(
    kernel: kernels.VarlenKernel, signature: inspect.Signature, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Which parameter of `signature` each argument of the kernel's call got; and its borders."""
    bound: dict[str, Any] = {}

    def record(*args: Any, **kwargs: Any) -> torch.Tensor:
        bound.update(signature.bind(*args, **kwargs).arguments)
        return args[0]

    entry = GPU_KERNELS[kernel.name]
    module = ModuleType(entry.module)
    setattr(module, entry.package_function, record)
    monkeypatch.setitem(sys.modules, entry.module, module)
    borders: Any = attention.document_borders(cu_seqlens())
    inputs = heads(4, 2, 8, dtype=torch.bfloat16)
    kernel(None, *inputs, None, scaling=0.3, sliding_window=WINDOW, **borders)
    return bound, borders


def assert_as_meant(
    name: str, call: tuple[dict[str, Any], dict[str, Any]], signature: inspect.Signature
) -> None:
    bound, borders = call
    first, longest = ("query", "key", "value"), ("max_q", "max_k")
    cu = ("cu_seq_q", "cu_seq_k")
    expected: dict[str, Any] = {"scale": 0.3, "window_size": (WINDOW - 1, 0), "enable_gqa": True}
    if name != "varlen":
        first, longest = ("q", "k", "v"), ("max_seqlen_q", "max_seqlen_k")
        cu = ("cu_seqlens_q", "cu_seqlens_k")
        expected = {"softmax_scale": 0.3, "window_size": (WINDOW - 1, 0)}
        expected |= {"causal": True, "deterministic": False}
    expected |= dict.fromkeys(longest, borders["max_seqlen"])
    assert [bound.pop(key).shape for key in first] == [(73, 4, 8), (73, 2, 8), (73, 2, 8)]
    assert all(bound.pop(key) is borders["cu_seqlens"] for key in cu)
    assert bound == expected
    # parameters that are not given have a default
    assert not [
        p.name
        for p in signature.parameters.values()
        if p.default is p.empty and p.name not in {*first, *cu, *expected}
    ]


def signature_of(row: dict[str, Any]) -> inspect.Signature:
    if row["kernel"] == "varlen":
        return inspect.signature(varlen_attn)
    return kernel_definitions.signature(row["definition"])


@pytest.mark.parametrize("row", [*FLASH, TORCH], ids=row_name)
def test_each_argument_reaches_the_parameter_that_is_meant(
    row: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel: Any = GPU_KERNELS[row["kernel"]].function
    signature = signature_of(row)
    assert_as_meant(row["kernel"], bound_arguments(kernel, signature, monkeypatch), signature)


def by_position(
    package: str, q: Any, k: Any, v: Any, queries: Any, keys: Any, scale: float, *_: Any
) -> Any:
    return sys.modules[package].flash_attn_varlen_func(
        q, k, v, queries["cu_seqlens"], keys["cu_seqlens"], max_seqlen_q=queries["max_seqlen"],
        max_seqlen_k=keys["max_seqlen"], softmax_scale=scale, causal=True,
        window_size=(WINDOW - 1, 0), deterministic=False,
    )  # fmt: skip


def test_borders_by_position_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """flash-attn 4 put another tensor into the borders' place in 4.0.0b9."""
    call: Callable[..., Any] = partial(by_position, "flash_attn.cute")
    kernel = kernels.VarlenKernel("flash4", call)
    oldest, newest = (signature_of(kernel_definitions.recorded("flash4")[n]) for n in (0, -1))
    assert_as_meant("flash4", bound_arguments(kernel, oldest, monkeypatch), oldest)
    bound, borders = bound_arguments(kernel, newest, monkeypatch)
    assert bound["qv"] is bound["cu_seqlens_q"] is borders["cu_seqlens"]
    with pytest.raises(KeyError, match="cu_seqlens_k"):
        assert_as_meant("flash4", (bound, borders), newest)


@pytest.mark.parametrize("name", GPU_KERNELS)
def test_the_stand_ins_have_the_newest_definition(name: str) -> None:
    function = getattr(Calls(), "flash2" if name == "flash" else name)
    newest = TORCH if name == "varlen" else kernel_definitions.recorded(name)[-1]
    stand_in, own = (
        [(p.name, p.kind, p.default) for p in s.parameters.values()]
        for s in (inspect.signature(function), signature_of(newest))
    )
    assert stand_in == own


def specifiers() -> dict[str, Requirement]:
    """By extra: what it requires of the kernel's package."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return {name: Requirement(extras[name][0]) for name in EXTRAS}


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_record_begins_where_the_extra_does(extra: str) -> None:
    requirement = specifiers()[extra]
    assert requirement.name == EXTRAS[extra]
    bounds = {s.operator: s.version for s in requirement.specifier}
    versions = [v for row in kernel_definitions.recorded(extra) for v in row["sha256"]]
    assert any(v.startswith(bounds[">="]) for v in versions), bounds
    assert "<" in bounds, "a new major may have another definition"


@pytest.mark.parametrize("major", [9, 10, 11])
def test_flash_attn_4_is_given_the_heads_that_its_own_check_takes(major: int) -> None:
    row = kernel_definitions.recorded("flash4")[-1]
    accepted = [
        [head, value]
        for head, value in kernel_definitions.SIZES
        if not heads_of_flash4(major, Requirements(head_dim=head, value_dim=value))
    ]
    assert sorted(accepted) == row["heads"][str(major)]
    assert list(GPU_KERNELS["flash4"].sink_majors) == row["sink_majors"]


@pytest.mark.slow
@pytest.mark.parametrize("extra", EXTRAS)
def test_the_record_is_what_the_index_has(extra: str, tmp_path: Path) -> None:
    """Every release that the extra allows; needs pip and the package index."""
    requirement = specifiers()[extra]
    try:
        versions = list(
            requirement.specifier.filter(
                kernel_definitions.released(requirement.name), prereleases=True
            )
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no package index: {error}")
    rows = [row for row in FLASH if row.get("distribution") == requirement.name]
    assert versions
    for version in versions:
        folder = tmp_path / version
        folder.mkdir()
        files = dict(kernel_definitions.downloaded(requirement.name, version, folder))
        for file in {row["file"] for row in rows}:
            (row,) = (r for r in rows if r["file"] == file and version in r["sha256"])
            assert row["sha256"][version] == hashlib.sha256(files[file]).hexdigest(), version
            assert row["definition"] == kernel_definitions.definition(files[file])
    if extra == "flash4":
        source = files["flash_attn/cute/interface.py"]
        assert row["sink_majors"] == kernel_definitions.sink_majors(source)
        for major, accepted in row["heads"].items():
            assert accepted == kernel_definitions.heads_of_flash4(source, int(major))
