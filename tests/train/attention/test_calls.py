"""Calls of kernels that need a GPU, with stand-ins of the same signatures.

Arguments are checked by the stand-ins, outputs and gradients against eager attention.
"""

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from architectures import small_model
from oracle import ENDS, cu_seqlens, eager, gradients, heads, visible
from stand_ins import Calls

from ropewalk.conf.errors import ConfigError
from ropewalk.train import attention
from ropewalk.train.attention.kernels import GPU_KERNELS
from ropewalk.train.attention.sdpa import sdpa
from ropewalk.train.attention.support import Requirements
from ropewalk.train.kernel_packages import cuda_tag

KERNELS = {name: kernel.function for name, kernel in GPU_KERNELS.items()}
SCALE = 0.3
WITH_SINKS = Requirements(sinks=True)


@pytest.fixture()
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    recorder = Calls()
    for name, module in recorder.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    yield recorder


@pytest.mark.parametrize("window", [None, 5, 100])
@pytest.mark.parametrize(
    "shape", [(4, 4, 8, 8), (4, 2, 8, 8), (4, 1, 16, 8)], ids=["all heads", "gqa", "narrow values"]
)
@pytest.mark.parametrize("name", KERNELS)
def test_forward_and_backward_equal_eager_attention(
    name: str, shape: tuple[int, int, int, int], window: int | None, calls: Calls
) -> None:
    h, k, d, e = shape
    inputs = heads(h, k, d, e=e, dtype=torch.bfloat16)
    borders = attention.document_borders(cu_seqlens())
    output, _ = KERNELS[name](None, *inputs, None, scaling=SCALE, sliding_window=window, **borders)
    expected = eager(*inputs, visible(ENDS, window), SCALE)
    assert output.shape == (1, ENDS[-1], h, e) and output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), expected, atol=1e-2, rtol=1e-2)
    for gradient, expected_gradient in zip(
        gradients(output, inputs), gradients(expected, inputs), strict=True
    ):
        torch.testing.assert_close(gradient, expected_gradient, atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize("name", KERNELS)
def test_arguments_are_as_the_kernel_documents(name: str, calls: Calls) -> None:
    """The stand-ins refuse wrong dtypes, shapes, strides and positions."""
    q, k, v = heads(4, 2, 8, dtype=torch.bfloat16)
    borders = attention.document_borders(cu_seqlens())
    KERNELS[name](None, q, k, v, None, scaling=SCALE, sliding_window=5, **borders)
    (call,) = calls.recorded
    assert (call.longest, call.scale, call.window) == (24, SCALE, 5)
    assert call.cu is borders["cu_seqlens"], "made once a step, not once a layer"
    assert torch.equal(call.q, q[0].transpose(0, 1)) and torch.equal(call.k, k[0].transpose(0, 1))
    assert call.v.shape == (73, 2, 8)


@pytest.mark.parametrize("name", ["flash", "flash3", "flash4"])
def test_a_deterministic_backward_pass_is_requested_when_torch_is_deterministic(
    name: str, calls: Calls
) -> None:
    """By default these kernels' backward passes add in the order in which blocks end."""
    inputs = heads(4, 2, 8, dtype=torch.bfloat16)
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        for fixed in (False, True):
            torch.use_deterministic_algorithms(fixed)
            KERNELS[name](None, *inputs, None, **attention.document_borders(cu_seqlens()))
    finally:
        torch.use_deterministic_algorithms(was_deterministic)
    assert calls.fixed == [False, True]


@pytest.mark.parametrize("name", KERNELS)
def test_without_borders_the_sequence_is_one_document(name: str, calls: Calls) -> None:
    inputs = heads(4, 2, 8, s=9, dtype=torch.bfloat16)
    output, _ = KERNELS[name](None, *inputs, None)
    expected = eager(*inputs, visible((0, 9), None), 8**-0.5)
    torch.testing.assert_close(output.float(), expected, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("name", KERNELS)
def test_fp32_and_sinks_are_refused_with_the_way_out(name: str, calls: Calls) -> None:
    q, k, v = heads(2, 2, 8)
    setting = f"train.attention.kernel is {name}; "
    with pytest.raises(ConfigError, match=f"{setting}.*not float32; set train.precision=bf16 or"):
        KERNELS[name](None, q, k, v, None)
    q, k, v = (x.bfloat16() for x in (q, k, v))
    if name == "flash4":
        return
    message = f"{setting}.*sinks no gradient; set train.attention.kernel=sdpa"
    with pytest.raises(ConfigError, match=message):
        KERNELS[name](None, q, k, v, None, s_aux=torch.zeros(2))
    assert not calls.recorded


@pytest.mark.parametrize("window", [None, 5])
def test_flash_attn_4_learns_sinks(window: int | None, calls: Calls) -> None:
    inputs = heads(4, 2, 8, dtype=torch.bfloat16)
    s_aux = torch.linspace(-2, 3, 4).requires_grad_()
    borders = attention.document_borders(cu_seqlens())
    output, _ = KERNELS["flash4"](
        None, *inputs, None, scaling=SCALE, sliding_window=window, s_aux=s_aux, **borders
    )
    expected = eager(*inputs, visible(ENDS, window), SCALE, s_aux)
    torch.testing.assert_close(output.float(), expected, atol=1e-2, rtol=1e-2)
    leaves = (*inputs, s_aux)
    for gradient, expected_gradient in zip(
        gradients(output, leaves), gradients(expected, leaves), strict=True
    ):
        torch.testing.assert_close(gradient, expected_gradient, atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize(
    ("shape", "given"),
    [((2, 2, 192, 128), 128), ((4, 2, 192, 128), 192), ((2, 2, 192, 64), 192)],
    ids=["as DeepSeek", "shared heads", "narrower"],
)
def test_flash_attn_4_gets_values_of_128_as_they_are(
    shape: tuple[int, int, int, int], given: int, calls: Calls
) -> None:
    """It takes heads of 192 on Blackwell with such values only."""
    h, k, d, e = shape
    inputs = heads(h, k, d, e=e, dtype=torch.bfloat16)
    output, _ = KERNELS["flash4"](None, *inputs, None, **attention.document_borders(cu_seqlens()))
    assert calls.recorded[0].v.shape[2] == given and output.shape[3] == e


def on_gpu(monkeypatch: pytest.MonkeyPatch, major: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (major, 0))


@pytest.mark.parametrize(
    ("major", "name"), [(10, "flash4"), (9, "flash3"), (8, "flash"), (12, "flash"), (7, "sdpa")]
)
def test_auto_selects_the_fastest_available_kernel(
    major: int, name: str, calls: Calls, monkeypatch: Any
) -> None:
    on_gpu(monkeypatch, major)
    assert attention.describe(attention.register("auto")).split(" (")[0] == name


@pytest.mark.parametrize("major", range(7, 14))
def test_varlen_needs_no_package_from_ampere_to_blackwell(
    major: int, calls: Calls, monkeypatch: Any
) -> None:
    """NVIDIA's compute capabilities: 8 Ampere and Ada, 9 Hopper, 10 to 12 Blackwell."""
    on_gpu(monkeypatch, major)
    for module in ("flash_attn", "flash_attn.cute", "flash_attn_interface"):
        monkeypatch.setitem(sys.modules, module, None)
    kernel = attention.describe(attention.register("auto")).split(" (")[0]
    assert kernel == ("varlen" if 8 <= major <= 12 else "sdpa")


@pytest.mark.parametrize(
    ("name", "major"), [("flash", 8), ("varlen", 8), ("flash3", 9), ("flash4", 9)]
)
def test_a_kernel_runs_from_its_first_architecture_on(
    name: str, major: int, calls: Calls, monkeypatch: Any
) -> None:
    """FlashAttention-2 from Ampere on, 3 and 4 from Hopper on."""
    on_gpu(monkeypatch, major)
    assert attention.describe(attention.register(name)) == name
    on_gpu(monkeypatch, major - 1)
    with pytest.raises(ConfigError, match=f"it needs compute capability {major}.0"):
        attention.register(name)


def test_flash_attn_3_is_refused_on_blackwell(calls: Calls, monkeypatch: Any) -> None:
    """It holds instructions of Hopper (wgmma) that no later GPU has."""
    on_gpu(monkeypatch, 10)
    message = "flash3; it is built for compute capability 9.x, not 10.x; set flash4, flash, varlen"
    with pytest.raises(ConfigError, match=f"train.attention.kernel is {message}, or set"):
        attention.register("flash3")


@pytest.mark.parametrize("kind", ["Llama", "GptOss"])
@pytest.mark.parametrize("name", ["sdpa", *KERNELS])
def test_transformers_runs_our_kernel_not_its_own(
    name: str, kind: str, calls: Calls, monkeypatch: Any
) -> None:
    """transformers loads a kernel from the hub for a name that contains `flash` or `sdpa`."""
    from transformers import AttentionInterface

    on_gpu(monkeypatch, 9)
    registered = attention.register(name)
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
    model = small_model(kind, experts if kind == "GptOss" else {})
    model.set_attn_implementation(registered)
    assert model.config._attn_implementation == registered
    assert inspect.unwrap(AttentionInterface()[registered]) is (
        sdpa if name == "sdpa" else KERNELS[name]
    )


def test_auto_reports_why_it_did_not_take_a_faster_kernel(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu(monkeypatch, 9)
    for name in ("flash_attn", "flash_attn.cute", "flash_attn_interface"):
        monkeypatch.setitem(sys.modules, name, None)
    message = attention.describe(attention.register("auto"))
    assert message.startswith(
        "varlen (auto: not flash3: it needs flash_attn_interface, which does not load"
    ), message
    assert "pip install flash-attn-3 --index-url https://download.pytorch.org/whl/cu1" in message
    assert "; not flash: it needs flash_attn, which does not load" in message


@pytest.mark.parametrize(
    ("version", "folder"),
    [("13.0", "cu130"), ("13.2", "cu130"), ("12.8", "cu128"), (None, "cu130")],
)
def test_flash_attn_3_is_installed_for_torchs_cuda(version: str | None, folder: str) -> None:
    assert cuda_tag(version) == folder


@pytest.mark.parametrize(
    ("major", "kernel"), [(8, "sdpa"), (9, "flash4"), (10, "flash4"), (12, "sdpa")]
)
def test_sinks_are_learned_where_flash_attn_4_does(
    major: int, kernel: str, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu(monkeypatch, major)
    description = attention.describe(attention.register("auto", requirements=WITH_SINKS))
    assert description.split(" (")[0] == kernel
    if kernel == "sdpa":
        message = "it gives attention sinks, which this model has, no gradient"
        assert message in description
        with pytest.raises(ConfigError, match=f"flash; .*{message}.*set train.attention.kernel"):
            attention.register("flash", requirements=WITH_SINKS)


def test_the_models_requirements_come_before_the_installed_packages(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu(monkeypatch, 9)
    cases = {
        "it takes bf16 or fp16 and the model is computed in fp32": Requirements(torch.float32),
        "it takes heads of up to 256 dimensions here, not 512": Requirements(head_dim=512),
        "it takes heads in multiples of eight here, not 36": Requirements(head_dim=36),
    }
    for message, requirements in cases.items():
        description = attention.describe(attention.register("auto", requirements=requirements))
        assert description.startswith("sdpa (auto: not flash3: ") and message in description
        match = f"train.attention.kernel is flash3; .*{message}.*set train.attention.kernel=sdpa"
        with pytest.raises(ConfigError, match=match):
            attention.register("flash3", requirements=requirements)
    name = attention.register("auto", requirements=Requirements(head_dim=256))
    assert attention.describe(name) == "flash3 (auto)"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine with CUDA has other kernels")
def test_a_cpu_uses_sdpa_and_reports_why() -> None:
    assert attention.describe(attention.register("auto")) == "sdpa (auto: no CUDA device)"
    assert attention.describe(attention.register("sdpa")) == "sdpa"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine with CUDA may have them")
@pytest.mark.parametrize("name", KERNELS)
def test_a_gpu_kernel_is_refused_without_a_gpu(name: str) -> None:
    message = (
        f"train.attention.kernel is {name}; it needs a CUDA device; run on a GPU, "
        "or set train.attention.kernel=sdpa"
    )
    with pytest.raises(ConfigError, match=message):
        attention.register(name)


def test_a_kernel_that_is_not_installed_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_gpu(monkeypatch, 8)
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    with pytest.raises(
        ConfigError, match=r"flash; it needs flash_attn, which does not load .*'\.\[flash\]'"
    ):
        attention.register("flash")
    message = "flash3; it needs compute capability 9.0; run on a newer GPU"
    with pytest.raises(ConfigError, match=f"train.attention.kernel is {message}"):
        attention.register("flash3")


def test_a_wrapped_kernel_has_its_own_name(calls: Calls) -> None:
    """Ulysses' exchange wraps the kernel; eval in the same process uses it unwrapped."""
    from transformers import AttentionInterface

    wrapped: list[Any] = []

    def wrap(kernel: Any) -> Any:
        wrapped.append(kernel)
        return lambda *args, **kwargs: kernel(*args, **kwargs)

    name = attention.register("sdpa", wrap)
    assert name == f"{attention.register('sdpa')}_wrapped"
    assert [inspect.unwrap(kernel) for kernel in wrapped] == [sdpa]
    assert inspect.unwrap(AttentionInterface()[attention.register("sdpa")]) is sdpa
    assert inspect.unwrap(AttentionInterface()[name]) is not sdpa


def borders_of(**changes: Any) -> Any:
    return attention.document_borders(cu_seqlens()) | changes


WRONG_BORDERS: dict[str, tuple[dict[str, Any], str]] = {
    "of another dtype": ({"cu_seqlens": cu_seqlens().long()}, "cu_seqlens is torch.int64 on cpu"),
    "of other documents": ({"cu_seqlens": cu_seqlens((0, 73))}, r"cu_seqlens has shape \(2,\)"),
    "too short a maximum": (
        {"max_seqlen": 20},
        "max_seqlen is 20; the 6 documents have at most 24",
    ),
    "without a maximum": ({"max_seqlen": None}, "give all three"),
    "without their ends": ({"document_ends": None}, "give all three"),
}


@pytest.mark.parametrize("case", WRONG_BORDERS)
@pytest.mark.parametrize("name", ["sdpa", *KERNELS])
def test_wrong_borders_are_refused(name: str, case: str, calls: Calls) -> None:
    """A kernel would read other memory, or leave tokens out, and not say so."""
    kernel = sdpa if name == "sdpa" else KERNELS[name]
    changes, message = WRONG_BORDERS[case]
    inputs = heads(4, 2, 8, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=message):
        kernel(None, *inputs, None, **borders_of(**changes))
    assert not calls.recorded


@pytest.mark.parametrize("name", ["sdpa", *KERNELS])
def test_borders_on_the_host_are_refused_by_a_kernel_of_a_device(name: str, calls: Calls) -> None:
    kernel = sdpa if name == "sdpa" else KERNELS[name]
    inputs = [x.detach().to("meta") for x in heads(4, 2, 8, dtype=torch.bfloat16)]
    with pytest.raises(
        ValueError, match="cu_seqlens is torch.int32 on cpu and the tokens are on meta"
    ):
        kernel(None, *inputs, None, **borders_of())


@pytest.mark.parametrize(
    ("borders", "message"),
    [
        (torch.tensor([0, 4]), "torch.int64 on cpu; it must be int32 on the host"),
        (torch.tensor([0, 4], dtype=torch.int32, device="meta"), "torch.int32 on meta"),
        (torch.tensor([1, 4], dtype=torch.int32), "must begin at 0 and never decrease"),
        (torch.tensor([0, 4, 3], dtype=torch.int32), "must begin at 0 and never decrease"),
        (torch.tensor([0], dtype=torch.int32), "must begin at 0 and never decrease"),
    ],
    ids=["int64", "on a device", "after 0", "decreasing", "no document"],
)
def test_a_steps_borders_are_checked_on_the_host(borders: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention.document_borders(borders)
