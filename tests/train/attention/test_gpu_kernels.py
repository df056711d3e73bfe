"""Tests of the attention kernels that need a CUDA device: `make test-gpu`.

A kernel that is not available is skipped with the reason.
"""

from typing import Any

import pytest
import torch
from architectures import small_model
from oracle import ENDS, eager, heads, visible
from torch.nn.attention import SDPBackend, sdpa_kernel

from ropewalk.train import attention
from ropewalk.train.attention import backend, document_runs, kernels, s2_attn, support
from ropewalk.train.attention.sdpa import sdpa

pytestmark = pytest.mark.gpu
LONG = 131_072
DOCUMENTS = (0, 1000, 1001, 3000, 4096)


def kernel(name: str) -> Any:
    if missing := backend.why_unavailable(kernels.GPU_KERNELS[name], support.Requirements()):
        pytest.skip(f"{name}: {missing}")
    return kernels.GPU_KERNELS[name].function


def borders_of(ends: tuple[int, ...]) -> dict[str, Any]:
    borders = attention.document_borders(
        torch.tensor(ends, dtype=torch.int32), torch.device("cuda", torch.cuda.current_device())
    )
    return {**borders}


def on_device(
    h: int, k: int, d: int, s: int, dtype: torch.dtype = torch.bfloat16, e: int | None = None
) -> tuple[Any, Any, Any]:
    query, key, value = (
        x.detach().cuda().requires_grad_() for x in heads(h, k, d, s=s, dtype=dtype, e=e)
    )
    return query, key, value


def assert_close(actual: torch.Tensor, reference: torch.Tensor, tolerance: float) -> None:
    distance = (actual.float() - reference.float()).norm()
    assert (distance / reference.float().norm()).item() < tolerance


@pytest.mark.parametrize("window", [None, 2, 300, 4096])
@pytest.mark.parametrize(
    "shape",
    [(8, 2, 64, 64), (8, 8, 128, 128), (4, 1, 128, 64)],
    ids=["gqa", "wide", "narrow values"],
)
@pytest.mark.parametrize("name", kernels.GPU_KERNELS)
def test_forward_and_backward_equal_per_document_sdpa_in_fp32(
    name: str, shape: Any, window: int | None
) -> None:
    run, (h, k, d, e) = kernel(name), shape
    inputs = on_device(h, k, d, 4096, e=e)
    kwargs = {"scaling": d**-0.5, "sliding_window": window, **borders_of(DOCUMENTS)}
    output, _ = run(None, *inputs, None, **kwargs)
    expected, _ = sdpa(None, *(x.float() for x in inputs), None, **kwargs)
    assert_close(output, expected, 1e-2)
    weight = torch.randn_like(expected)
    actual = torch.autograd.grad((output.float() * weight).sum(), inputs)
    reference = torch.autograd.grad((expected * weight).sum(), inputs)
    for a, b in zip(actual, reference, strict=True):
        assert_close(a, b, 2e-2)


@pytest.mark.parametrize("window", [None, 4096])
@pytest.mark.parametrize("name", [*kernels.GPU_KERNELS, "sdpa"])
def test_131072_tokens_fit_in_one_call(name: str, window: int | None) -> None:
    run = sdpa if name == "sdpa" else kernel(name)
    inputs = on_device(8, 2, 128, LONG)
    torch.cuda.reset_peak_memory_stats()
    baseline = torch.cuda.memory_allocated()
    output, _ = run(None, *inputs, None, sliding_window=window, **borders_of((0, LONG)))
    output.float().sum().backward()
    assert all(bool(x.grad.isfinite().all()) for x in inputs)
    # one head's scores alone would be 32 GiB
    assert torch.cuda.max_memory_allocated() - baseline < 8 * 2**30
    last = slice(LONG - 64, LONG)
    reach = slice(0 if window is None else LONG - 64 - window, LONG)
    q, k, v = inputs[0][:, :, last], inputs[1][:, :, reach], inputs[2][:, :, reach]
    distance = (
        torch.arange(LONG, device="cuda")[last, None]
        - torch.arange(LONG, device="cuda")[None, reach]
    )
    mask = (distance >= 0) & (distance < (window or LONG))
    scores = q.float() @ k.float().repeat_interleave(4, dim=1).transpose(2, 3) * 128**-0.5
    expected = scores.masked_fill(~mask, float("-inf")).softmax(-1) @ v.float().repeat_interleave(
        4, dim=1
    )
    assert_close(output[:, last], expected.transpose(1, 2), 2e-2)


@pytest.mark.parametrize("name", [*kernels.GPU_KERNELS, "sdpa"])
@pytest.mark.parametrize("window", [None, 300])
def test_a_document_does_not_change_the_next(name: str, window: int | None) -> None:
    run = sdpa if name == "sdpa" else kernel(name)
    q, k, v = (x.detach() for x in on_device(8, 2, 64, 4096))
    baseline, _ = run(None, q, k, v, None, sliding_window=window, **borders_of(DOCUMENTS))
    k[:, :, 500] += 1
    changed_output, _ = run(None, q, k, v, None, sliding_window=window, **borders_of(DOCUMENTS))
    changed = (baseline != changed_output)[0].flatten(1).any(dim=1).nonzero().flatten().tolist()
    assert changed and min(changed) == 500 and max(changed) < min(1000, 500 + (window or 1000))


@pytest.mark.parametrize("sinks", [False, True], ids=["", "sinks"])
@pytest.mark.parametrize("window", [None, 5, 24])
def test_sdpa_on_the_device_equals_eager_attention_on_the_cpu(
    window: int | None, sinks: bool
) -> None:
    inputs = heads(4, 2, 16)
    s_aux = torch.linspace(-2, 3, 4) if sinks else None
    kwargs = {
        "scaling": 0.3,
        "sliding_window": window,
        "s_aux": None if s_aux is None else s_aux.cuda(),
    }
    output, _ = sdpa(None, *(x.cuda() for x in inputs), None, **kwargs, **borders_of(ENDS))
    torch.testing.assert_close(
        output.cpu(), eager(*inputs, visible(ENDS, window), 0.3, s_aux), atol=2e-4, rtol=2e-4
    )


@pytest.mark.parametrize("sinks", [False, True], ids=["", "sinks"])
@pytest.mark.parametrize("window", [None, 128])
def test_sdpa_never_uses_the_math_kernel(window: int | None, sinks: bool) -> None:
    """It holds all scores; a window's mask and a sink's odd length must not lead to it."""
    inputs = on_device(8, 2, 64, 4096)
    s_aux = torch.zeros(8, device="cuda") if sinks else None
    with sdpa_kernel(
        [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]
    ):
        output, _ = sdpa(
            None, *inputs, None, sliding_window=window, s_aux=s_aux, **borders_of(DOCUMENTS)
        )
        output.float().sum().backward()


@pytest.mark.parametrize("name", kernels.GPU_KERNELS)
def test_shifted_groups_equal_those_of_sdpa(name: str) -> None:
    run = kernel(name)
    trains: Any = torch.nn.Module().train()
    inputs = on_device(8, 2, 64, 4096)
    output, expected = (
        s2_attn.s2_attention(kernel_function, 256)(
            trains, *x, None, scaling=0.125, **borders_of(DOCUMENTS)
        )[0]
        for kernel_function, x in ((run, inputs), (sdpa, [x.float() for x in inputs]))
    )
    assert_close(output, expected, 1e-2)


@pytest.mark.parametrize("name", kernels.GPU_KERNELS)
def test_a_recomputed_layer_has_the_same_output(name: str) -> None:
    """Activation checkpointing computes it twice. Only the forward pass is deterministic."""
    run = kernel(name)
    inputs = on_device(8, 2, 64, 4096)
    once, again = (
        run(None, *inputs, None, sliding_window=300, **borders_of(DOCUMENTS))[0] for _ in range(2)
    )
    assert torch.equal(once, again)


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "GptOss"])
def test_a_model_runs_the_kernel_that_auto_selected(kind: str) -> None:
    """transformers must not replace it by its own kernel."""
    changes = {
        "GptOss": {"num_local_experts": 4, "num_experts_per_tok": 2},
        "Mistral": {"sliding_window": 6},
    }
    model = small_model(kind, changes.get(kind, {})).bfloat16().cuda()
    attention.prove_documents_isolated(model)
    name = attention.register("auto", requirements=attention.requirements_of(model, torch.bfloat16))
    model.set_attn_implementation(name)
    assert model.config._attn_implementation == name
    ids = torch.arange(1, 41, device="cuda")[None]
    output = model(input_ids=ids, use_cache=False, **borders_of((0, 15, 40))).logits
    assert bool(output.isfinite().all()), attention.describe(name)


WINDOWS_AND_FULL = {
    "sliding_window": 6,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}


@pytest.mark.parametrize("kind", ["Llama", "Gemma3Text"])
@pytest.mark.parametrize("name", [*kernels.GPU_KERNELS, "sdpa"])
def test_a_kernel_is_proved_before_the_first_step(name: str, kind: str) -> None:
    """The package's version is in the line, which `pytest -s` shows."""
    if name != "sdpa":
        kernel(name)
    model: Any = small_model(kind, WINDOWS_AND_FULL if kind == "Gemma3Text" else {})
    model.set_attn_implementation(attention.register(name))
    print(attention.prove_kernel(model, torch.bfloat16, torch.device("cuda", 0), 1))


def test_flash_attn_4_learns_sinks_on_the_device() -> None:
    model: Any = small_model("GptOss", {**WINDOWS_AND_FULL, **EXPERTS})
    requirements = attention.requirements_of(model, torch.bfloat16)
    if missing := backend.why_unavailable(kernels.GPU_KERNELS["flash4"], requirements):
        pytest.skip(f"flash4: {missing}")
    model.set_attn_implementation(attention.register("flash4", requirements=requirements))
    print(attention.prove_kernel(model, torch.bfloat16, torch.device("cuda", 0), 1))


@pytest.mark.parametrize("dims", [(192, 128), (256, 256)], ids=["DeepSeek", "wide"])
@pytest.mark.parametrize("name", kernels.GPU_KERNELS)
def test_heads_that_a_kernel_is_given_are_computed(name: str, dims: tuple[int, int]) -> None:
    """flash-attn 4 says which it takes on which device."""
    d, e = dims
    requirements = support.Requirements(head_dim=d, value_dim=e)
    if missing := backend.why_unavailable(kernels.GPU_KERNELS[name], requirements):
        pytest.skip(f"{name}: {missing}")
    inputs = on_device(4, 4, d, 4096, e=e)
    output, _ = kernels.GPU_KERNELS[name].function(None, *inputs, None, **borders_of(DOCUMENTS))
    expected, _ = sdpa(None, *(x.float() for x in inputs), None, **borders_of(DOCUMENTS))
    assert_close(output, expected, 1e-2)
    weight = torch.randn_like(expected)
    actual = torch.autograd.grad((output.float() * weight).sum(), inputs)
    reference = torch.autograd.grad((expected * weight).sum(), inputs)
    for a, b in zip(actual, reference, strict=True):
        assert_close(a, b, 2e-2)


@pytest.mark.parametrize("name", [*kernels.GPU_KERNELS, "sdpa"])
def test_more_documents_than_cudas_grid_are_computed(name: str) -> None:
    """A query that sees itself alone returns its value."""
    run = sdpa if name == "sdpa" else kernel(name)
    documents = 70_000
    inputs = on_device(2, 1, 64, documents)
    output, _ = run(None, *inputs, None, **borders_of(tuple(range(documents + 1))))
    torch.testing.assert_close(output[0], inputs[2][0].transpose(0, 1).expand(-1, 2, -1))
    output.float().sum().backward()
    assert all(bool(x.grad.isfinite().all()) for x in inputs)


def milliseconds(run: Any, inputs: Any, **arguments: Any) -> tuple[torch.Tensor, float]:
    """The output, and the median time of a forward and backward pass."""
    times = []
    for _ in range(8):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        output, _ = run(None, *inputs, None, **arguments)
        torch.autograd.grad(output.float().sum(), inputs)
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return output, sorted(times[2:])[3]


@pytest.mark.parametrize("name", ["flash3", "flash", "varlen"])
def test_a_long_document_among_short_ones_is_faster_in_its_own_call(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By arithmetic one call launches 3.1 million blocks, of which 7,128 have work."""
    run = kernel(name)
    ends = tuple(torch.tensor([0] + [31] * 600 + [100_000] + [31] * 400).cumsum(0).tolist())
    inputs = on_device(4, 1, 128, ends[-1])
    by_runs, apart = milliseconds(run, inputs, **borders_of(ends))
    assert len(document_runs.document_runs(ends, 4)) == 3
    monkeypatch.setattr(document_runs, "CALL_COST", 2**40)
    document_runs.document_runs.cache_clear()
    in_one_call, together = milliseconds(run, inputs, **borders_of(ends))
    document_runs.document_runs.cache_clear()
    assert_close(by_runs, in_one_call, 1e-3)
    print(f"{name}: {apart:.1f} ms by runs, {together:.1f} ms in one call")
    assert apart < together
