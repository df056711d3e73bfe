"""What a CPU cannot confirm of the attention kernels: `make test-gpu` on a CUDA machine. One test a claim; a kernel that is not there is
skipped with what it lacks."""

from typing import Any

import pytest
import torch
from architectures import made
from oracle import ENDS, eager, heads, visible
from torch.nn.attention import SDPBackend, sdpa_kernel

from ropewalk.train import attention
from ropewalk.train.attention import backend, s2_attn, support
from ropewalk.train.attention.sdpa import sdpa

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
LONG = 131_072
DOCUMENTS = (0, 1000, 1001, 3000, 4096)


def kernel(name: str) -> Any:
    if missing := backend.why_unavailable(backend.GPU_KERNELS[name], support.Requirements()):
        pytest.skip(f"{name}: {missing}")
    return backend.GPU_KERNELS[name].function


def marks(ends: tuple[int, ...]) -> dict[str, Any]:
    return attention.document_borders(torch.tensor(ends, dtype=torch.int32, device="cuda"))


def on_device(
    h: int, k: int, d: int, s: int, dtype: torch.dtype = torch.bfloat16, e: int | None = None
) -> list[Any]:
    return [x.detach().cuda().requires_grad_() for x in heads(h, k, d, s=s, dtype=dtype, e=e)]


def near(ours: torch.Tensor, theirs: torch.Tensor, allowed: float) -> None:
    assert ((ours.float() - theirs.float()).norm() / theirs.float().norm()).item() < allowed


@pytest.mark.parametrize("window", [None, 2, 300, 4096])
@pytest.mark.parametrize(
    "shape",
    [(8, 2, 64, 64), (8, 8, 128, 128), (4, 1, 128, 64)],
    ids=["gqa", "wide", "narrow values"],
)
@pytest.mark.parametrize("name", backend.GPU_KERNELS)
def test_it_equals_per_document_sdpa_in_fp32_forward_and_backward(
    name: str, shape: Any, window: int | None
) -> None:
    run, (h, k, d, e) = kernel(name), shape
    given = on_device(h, k, d, 4096, e=e)
    words = {"scaling": d**-0.5, "sliding_window": window, **marks(DOCUMENTS)}
    found, _ = run(None, *given, None, **words)
    wanted, _ = sdpa(None, *(x.float() for x in given), None, **words)
    near(found, wanted, 1e-2)
    weight = torch.randn_like(wanted)
    ours = torch.autograd.grad((found.float() * weight).sum(), given)
    theirs = torch.autograd.grad((wanted * weight).sum(), given)
    for a, b in zip(ours, theirs, strict=True):
        near(a, b, 2e-2)


@pytest.mark.parametrize("window", [None, 4096])
@pytest.mark.parametrize("name", [*backend.GPU_KERNELS, "sdpa"])
def test_it_takes_131072_tokens_in_one_call(name: str, window: int | None) -> None:
    run = sdpa if name == "sdpa" else kernel(name)
    given = on_device(8, 2, 128, LONG)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found, _ = run(None, *given, None, sliding_window=window, **marks((0, LONG)))
    found.float().sum().backward()
    assert all(bool(x.grad.isfinite().all()) for x in given)
    # one head's scores alone would be 32 GiB
    assert torch.cuda.max_memory_allocated() - before < 8 * 2**30
    last = slice(LONG - 64, LONG)
    reach = slice(0 if window is None else LONG - 64 - window, LONG)
    q, k, v = given[0][:, :, last], given[1][:, :, reach], given[2][:, :, reach]
    far = (
        torch.arange(LONG, device="cuda")[last, None]
        - torch.arange(LONG, device="cuda")[None, reach]
    )
    seen = (far >= 0) & (far < (window or LONG))
    scores = q.float() @ k.float().repeat_interleave(4, dim=1).transpose(2, 3) * 128**-0.5
    wanted = scores.masked_fill(~seen, float("-inf")).softmax(-1) @ v.float().repeat_interleave(
        4, dim=1
    )
    near(found[:, last], wanted.transpose(1, 2), 2e-2)


@pytest.mark.parametrize("name", [*backend.GPU_KERNELS, "sdpa"])
@pytest.mark.parametrize("window", [None, 300])
def test_a_document_changes_no_bit_of_the_next(name: str, window: int | None) -> None:
    run = sdpa if name == "sdpa" else kernel(name)
    q, k, v = (x.detach() for x in on_device(8, 2, 64, 4096))
    before, _ = run(None, q, k, v, None, sliding_window=window, **marks(DOCUMENTS))
    k[:, :, 500] += 1
    after, _ = run(None, q, k, v, None, sliding_window=window, **marks(DOCUMENTS))
    changed = (before != after)[0].flatten(1).any(dim=1).nonzero().flatten().tolist()
    assert changed and min(changed) == 500 and max(changed) < min(1000, 500 + (window or 1000))


@pytest.mark.parametrize("sinks", [False, True], ids=["", "sinks"])
@pytest.mark.parametrize("window", [None, 5, 24])
def test_sdpa_on_the_device_equals_eager_attention_on_the_cpu(
    window: int | None, sinks: bool
) -> None:
    given = heads(4, 2, 16)
    s_aux = torch.linspace(-2, 3, 4) if sinks else None
    words = {
        "scaling": 0.3,
        "sliding_window": window,
        "s_aux": None if s_aux is None else s_aux.cuda(),
    }
    found, _ = sdpa(None, *(x.cuda() for x in given), None, **words, **marks(ENDS))
    torch.testing.assert_close(
        found.cpu(), eager(*given, visible(ENDS, window), 0.3, s_aux), atol=2e-4, rtol=2e-4
    )


@pytest.mark.parametrize("sinks", [False, True], ids=["", "sinks"])
@pytest.mark.parametrize("window", [None, 128])
def test_sdpa_never_takes_the_kernel_that_holds_all_scores(window: int | None, sinks: bool) -> None:
    """A window has a mask, a sink an odd length: neither may send torch to its math kernel."""
    given = on_device(8, 2, 64, 4096)
    s_aux = torch.zeros(8, device="cuda") if sinks else None
    with sdpa_kernel(
        [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]
    ):
        out, _ = sdpa(None, *given, None, sliding_window=window, s_aux=s_aux, **marks(DOCUMENTS))
        out.float().sum().backward()


@pytest.mark.parametrize("name", backend.GPU_KERNELS)
def test_shifted_groups_equal_those_of_sdpa(name: str) -> None:
    run = kernel(name)
    trains: Any = torch.nn.Module().train()
    given = on_device(8, 2, 64, 4096)
    found, wanted = (
        s2_attn.s2_attention(one, 256)(trains, *x, None, scaling=0.125, **marks(DOCUMENTS))[0]
        for one, x in ((run, given), (sdpa, [x.float() for x in given]))
    )
    near(found, wanted, 1e-2)


@pytest.mark.parametrize("name", backend.GPU_KERNELS)
def test_a_recomputed_layer_has_the_same_output(name: str) -> None:
    """Activation checkpointing computes it twice; the forward pass of these kernels is deterministic, their backward is not promised."""
    run = kernel(name)
    given = on_device(8, 2, 64, 4096)
    once, again = (
        run(None, *given, None, sliding_window=300, **marks(DOCUMENTS))[0] for _ in range(2)
    )
    assert torch.equal(once, again)


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "GptOss"])
def test_a_model_takes_what_auto_chose(kind: str) -> None:
    """transformers must not put a kernel of its own in its place."""
    more = {
        "GptOss": {"num_local_experts": 4, "num_experts_per_tok": 2},
        "Mistral": {"sliding_window": 6},
    }
    model = made(kind, more.get(kind, {})).bfloat16().cuda()
    attention.prove_documents_isolated(model)
    name = attention.register("auto", requirements=attention.requirements_of(model, torch.bfloat16))
    model.set_attn_implementation(name)
    assert model.config._attn_implementation == name
    ids = torch.arange(1, 41, device="cuda")[None]
    out = model(input_ids=ids, use_cache=False, **marks((0, 15, 40))).logits
    assert bool(out.isfinite().all()), attention.describe(name)
