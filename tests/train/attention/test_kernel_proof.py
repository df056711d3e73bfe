"""The proof of a kernel before the first step, and what it catches."""

import sys
from importlib import metadata
from typing import Any

import pytest
import ranks
import torch
import ulysses_kernel_ranks
from architectures import small_model
from oracle import ENDS, cu_seqlens, eager, gradients, heads, visible
from stand_ins import Calls

from ropewalk.conf.errors import ConfigError, ProofError
from ropewalk.train import attention
from ropewalk.train.attention import backend, kernel_proof
from ropewalk.train.attention.kernels import GPU_KERNELS
from ropewalk.train.cost import kernel_choice

CPU = torch.device("cpu")
MIXED = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"] * 2}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "mistral": ("Mistral", {"sliding_window": 6}),
    "gemma 3": ("Gemma3Text", MIXED),
    "gpt-oss": ("GptOss", {**MIXED, **EXPERTS}),
}


class Faulty(Calls):
    """Stand-ins whose answers, or arguments, are changed by `fault`."""

    fault: Any = None

    def _answer(self, q: Any, k: Any, v: Any, *others: Any) -> torch.Tensor:
        return self.fault(super()._answer, q, k, v, *others)  # type: ignore[no-any-return]


def as_one_document(answer: Any, q: Any, k: Any, v: Any, cus: Any, longest: Any, *rest: Any) -> Any:
    whole = torch.tensor([0, len(q)], dtype=torch.int32)
    return answer(q, k, v, (whole, whole), (len(q), len(q)), *rest)


def one_key_fewer(
    answer: Any,
    q: Any,
    k: Any,
    v: Any,
    cus: Any,
    longest: Any,
    scale: Any,
    causal: Any,
    window: Any,
) -> Any:
    left = window[0] if window[0] in (-1, None) else window[0] - 1
    return answer(q, k, v, cus, longest, scale, causal, (left, window[1]))


def default_scale(
    answer: Any, q: Any, k: Any, v: Any, cus: Any, longest: Any, _: Any, *r: Any
) -> Any:
    return answer(q, k, v, cus, longest, q.shape[2] ** -0.5, *r)


def no_gradient(answer: Any, q: Any, k: Any, v: Any, *others: Any) -> Any:
    return answer(q, k.detach() + 0 * k, v, *others)


def not_a_number(answer: Any, *arguments: Any) -> Any:
    return answer(*arguments) * float("nan")


def another_signature(answer: Any, *arguments: Any) -> Any:
    raise TypeError("flash_attn_varlen_func() got an unexpected keyword argument 'causal'")


NUMBERS = {
    "documents see each other": (as_one_document, "full attention, its output"),
    "a window of one key fewer": (one_key_fewer, "a sliding window, its output"),
    "the scale is not read": (default_scale, "full attention, its output"),
    "keys get no gradient": (no_gradient, "full attention, its gradients"),
    "not a number": (not_a_number, "full attention, its output .* is nan away"),
}


def with_stand_ins(monkeypatch: pytest.MonkeyPatch, recorder: Calls, model: Any, name: str) -> str:
    for module_name, module in recorder.modules().items():
        monkeypatch.setitem(sys.modules, module_name, module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    registered = attention.register(name)
    monkeypatch.undo()
    for module_name, module in recorder.modules().items():
        monkeypatch.setitem(sys.modules, module_name, module)
    model.set_attn_implementation(registered)
    return registered


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_sdpa_is_proved(name: str, dtype: torch.dtype) -> None:
    model: Any = small_model(*MODELS[name])
    model.set_attn_implementation(attention.register("sdpa"))
    line = attention.prove_kernel(model, dtype, CPU, 1)
    version = metadata.version("torch")
    assert line.startswith(f"attention kernel sdpa (torch {version}): on two documents its output")


@pytest.mark.parametrize("name", GPU_KERNELS)
def test_a_kernel_is_called_as_the_training_calls_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two documents of 64 tokens, with and without a window, of the model's heads."""
    model: Any = small_model("Gemma3Text", MIXED)
    calls = Calls()
    with_stand_ins(monkeypatch, calls, model, name)
    attention.prove_kernel(model, torch.bfloat16, CPU, 1)
    assert [call.window for call in calls.recorded] == [None, kernel_proof.WINDOW]
    for call in calls.recorded:
        assert call.cu.tolist() == [0, 64, 128] and call.scale == 2 * call.q.shape[2] ** -0.5
        assert call.q.shape[1] == model.config.num_attention_heads
        assert call.k.shape[1] == model.config.num_key_value_heads


@pytest.mark.parametrize("case", NUMBERS)
def test_a_kernel_of_other_numbers_is_refused(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, message = NUMBERS[case]
    calls = Faulty()
    calls.fault = fault
    model: Any = small_model("Gemma3Text", MIXED)
    with_stand_ins(monkeypatch, calls, model, "flash3")
    with pytest.raises(ProofError, match=f"train.attention.kernel is flash3; .*{message}"):
        attention.prove_kernel(model, torch.bfloat16, CPU, 1)


def test_a_kernel_that_cannot_be_called_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Faulty()
    calls.fault = another_signature
    model: Any = small_model("Llama", {})
    with_stand_ins(monkeypatch, calls, model, "flash")
    message = (
        r"flash; its first call on this device failed \(TypeError: flash_attn_varlen_func\(\) got"
    )
    with pytest.raises(ConfigError, match=f"train.attention.kernel is {message}"):
        attention.prove_kernel(model, torch.bfloat16, CPU, 1)


@pytest.mark.parametrize("world", [2, 3])
def test_the_exchange_of_heads_is_inside_the_proof(world: int) -> None:
    """Three ranks do not divide four heads: keys of other ranks come before the queries."""
    lines = ranks.run(world, ulysses_kernel_ranks.prove)
    assert len(lines) == world and all("sdpa (torch" in line for line in lines)


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("sinks", [False, True], ids=["", "sinks"])
def test_the_reference_is_transformers_eager_attention(window: int | None, sinks: bool) -> None:
    inputs = heads(4, 2, 8, e=6)
    s_aux = torch.linspace(-2, 3, 4).requires_grad_() if sinks else None
    leaves = [*inputs, *([s_aux] if s_aux is not None else [])]
    borders = attention.document_borders(cu_seqlens())
    output, _ = kernel_proof.dense_attention(
        None, *inputs, None, scaling=0.3, sliding_window=window, s_aux=s_aux, **borders
    )
    expected = eager(*inputs, visible(ENDS, window), 0.3, s_aux)
    torch.testing.assert_close(output, expected, atol=2e-6, rtol=1e-5)
    for gradient, reference in zip(
        gradients(output, leaves), gradients(expected, leaves), strict=True
    ):
        torch.testing.assert_close(gradient, reference, atol=1e-5, rtol=1e-5)


def on_hopper_without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> Any:
    for name, module in Calls().modules().items():
        monkeypatch.setitem(sys.modules, name, None if name in missing else module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    model: Any = small_model("Llama", {})
    model.set_attn_implementation(attention.register("auto"))
    return model


def test_a_faster_kernel_that_is_missing_is_named_with_its_gain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By hand: 1 / 380 + 2.5 / 320 over 1 / 640 + 2.5 / 530 is 1.66, which attention alone
    reaches: this model's matrices are small beside 1,000,000 tokens."""
    model = on_hopper_without(monkeypatch, "flash_attn", "flash_attn.cute", "flash_attn_interface")
    line = kernel_choice.faster_kernel(model, torch.bfloat16, 1_000_000)
    assert line.startswith("attention kernel flash3 is faster on this GPU and not installed; ")
    assert (
        "takes 1.66 times as long without it, and a step of documents of 1,000,000 tokens" in line
    )
    assert line.endswith(
        "pip install flash-attn-3 --index-url https://download.pytorch.org/whl/cu130"
    )
    step = float(line.split("tokens ")[1].split(" times")[0])
    assert 1.6 < step <= 1.66
    short = kernel_choice.faster_kernel(model, torch.bfloat16, 128)
    assert 1.0 <= float(short.split("tokens ")[1].split(" times")[0]) < step


def test_nothing_is_said_where_the_fastest_kernel_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = on_hopper_without(monkeypatch)
    assert kernel_choice.faster_kernel(model, torch.bfloat16, 4096) == ""
    # in fp32 no other kernel computes
    model.set_attn_implementation(attention.register("sdpa"))
    assert kernel_choice.faster_kernel(model, torch.float32, 4096) == ""


def test_the_kernels_version_names_what_stands_in_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch may run another flash attention inside its own kernels, not inside a package's."""
    monkeypatch.setattr(backend, "current_flash_attention_impl", lambda: "FA3")
    monkeypatch.setattr(backend, "backend_of", lambda name: name)
    torch_version = metadata.version("torch")
    assert backend.version_of("sdpa") == f"sdpa (torch {torch_version}, in which FA3 is active)"
    assert backend.version_of("varlen").endswith(", in which FA3 is active)")
    assert backend.version_of("flash").startswith("flash (flash")
    assert "FA3" not in backend.version_of("flash")
    monkeypatch.setattr(backend, "current_flash_attention_impl", lambda: None)
    assert backend.version_of("sdpa") == f"sdpa (torch {torch_version})"
