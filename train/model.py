"""Where a base lies, and models built from it with a rope plan applied first. Eval reads models through here."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedModel

from ropewalk.conf import phases
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.manifest import fingerprint, run_shared
from ropewalk.conf.schema import Config, ModelConfig, ScratchConfig
from ropewalk.train import attention, pieces
from ropewalk.train.attention.choice import Wrap
from ropewalk.train.rope import plan as rope_plan
from ropewalk.train.rope import proof
from ropewalk.train.rope.plan import RopePlan

BUILTIN = "builtin:"
BASES = Path(__file__).parent / "bases"


@dataclass(frozen=True)
class Base:
    """Where the base is: a folder or hub name, or a description to build from nothing."""

    path: str | None  # None: from scratch
    revision: str | None = None
    trust_remote_code: bool = False
    scratch: ScratchConfig | None = None
    identity: str = ""  # fingerprint of config and weights

    @property
    def name(self) -> str:
        """For messages and artifacts: no user path."""
        return "from scratch" if self.path is None else Path(self.path).name if Path(self.path).is_dir() else self.path


def starting(config: Config, cache: Path) -> Base:
    """Where the weights are that training starts from: the base's, or the phase before's. Raises: ConfigError."""
    before = phases.before(config)
    if before is None:
        return locate(config.model, cache)
    trained = str(before / "train" / "model")
    return locate(ModelConfig(path=trained, trust_remote_code=config.model.trust_remote_code), cache)


def locate(model: ModelConfig, cache: Path) -> Base:
    """Find the base; a GGUF file is converted once into the cache. Raises: ConfigError."""
    if model.scratch is not None:
        return Base(None, scratch=model.scratch, identity=fingerprint(vars(model.scratch)))
    assert model.path is not None
    path = model.path
    if path.startswith(BUILTIN):
        path = _builtin(path.removeprefix(BUILTIN))
    elif model.package is not None and (spec := importlib.util.find_spec(model.package)) is not None:
        path = _from_gguf(_packaged_gguf(model.package, spec), cache)
    elif model.gguf_file is not None:
        path = _from_gguf(Path(path).expanduser() / model.gguf_file, cache)
    folder = Path(path).expanduser()
    if folder.is_dir():
        return Base(str(folder), trust_remote_code=model.trust_remote_code, identity=_identity(folder))
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise ConfigError(f"model.path is {model.path}; it must be an existing folder or a hub name; correct the path")
    return Base(path, model.revision, model.trust_remote_code, identity=fingerprint([path, model.revision]))


def _builtin(name: str) -> str:
    folder = BASES / name
    if not (folder / "model.safetensors").is_file():
        there = ", ".join(sorted(BUILTIN + p.name for p in BASES.glob("*") if p.is_dir())) or "none"
        raise ConfigError(
            f"model.path is {BUILTIN}{name}; it must name a base that ropewalk ships ({there}); or run make base-model"
        )
    return str(folder)


def _packaged_gguf(package: str, spec: Any) -> Path:
    roots = [Path(p) for p in spec.submodule_search_locations or [Path(spec.origin).parent]]
    files = sorted(f for root in roots for f in root.rglob("*.gguf"))
    if len(files) != 1:
        raise ConfigError(f"model.package is {package}; it must carry one GGUF file, {len(files)} found; unset it")
    return files[0]


def _from_gguf(file: Path, cache: Path) -> str:
    """Dequantise to a Hugging Face folder, once. Raises: ConfigError when the file or the gguf package is missing."""
    if not file.is_file():
        raise ConfigError(f"model.gguf_file is {file.name}; no such file in model.path; correct the name")
    if any(importlib.util.find_spec(package) is None for package in ("gguf", "accelerate")):
        raise ConfigError(f"{file.name} is GGUF; it needs two more packages; pip install 'ropewalk[gguf]'")
    stat = file.stat()
    decides = {"name": file.name, "size": stat.st_size, "form": 1}
    folder = cache / "models" / f"{file.stem}-{fingerprint(decides)[:12]}"

    def work(temporary: Path) -> dict[str, Any]:
        from transformers import AutoTokenizer, GgufConfig

        print(f"dequantise {file.name} (about half a minute, once)")
        at = {"gguf_file": file.name}
        model = AutoModelForCausalLM.from_pretrained(
            str(file.parent), quantization_config=GgufConfig(dequantize=True), dtype=torch.float32, **at
        )
        AutoTokenizer.from_pretrained(str(file.parent), **at).save_pretrained(str(temporary))
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(str(temporary))
        return {}

    _, said = run_shared(f"model {file.stem}", decides, folder, work)
    if "skipped" not in said:
        print(said)
    return str(folder)


def _identity(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text()) if (folder / "config.json").is_file() else None
    if config is None:
        raise ConfigError(f"model.path is {folder.name}; it has no config.json; give a Hugging Face model folder")
    weights = sorted([p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in folder.glob("*.safetensors"))
    if not weights:
        raise ConfigError(f"model.path is {folder.name}; it has no .safetensors file; save the model as safetensors")
    return fingerprint([config, weights])


def base_config(base: Base) -> PreTrainedConfig:
    """The base's own config, unscaled. Raises: ConfigError when it cannot be read."""
    if base.scratch is not None:
        s = vars(base.scratch).copy()
        theta = s.pop("rope_theta")
        return LlamaConfig(
            **s, rope_parameters={"rope_type": "default", "rope_theta": theta}, bos_token_id=0, eos_token_id=0
        )
    try:
        found = AutoConfig.from_pretrained(
            str(base.path), revision=base.revision, trust_remote_code=base.trust_remote_code
        )
    except (OSError, ValueError, KeyError, TypeError, StrictDataclassError) as error:
        said = " ".join(line.strip() for line in str(error).strip().splitlines()[:2])
        raise ConfigError(f"model.path is {base.name}; its config must be readable by transformers; {said}") from error
    return found


def build(
    base: Base,
    plan: RopePlan,
    *,
    dtype: torch.dtype,
    seed: int = 0,
    attention_kernel: str = "auto",
    when: str = "after construction",
    wrap: Wrap | None = None,
    computes: torch.dtype | None = None,
    s2_group: int | None = None,
    loading: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
) -> PreTrainedModel:
    """The base with `plan` applied to its config before construction, proved live; `wrap` goes around its attention kernel.

    `computes`: what an engine will cast it to, for which the kernel is chosen; unset: `dtype`. `loading`: more words for
    `from_pretrained`, of weights of fewer bits. `settings`: DeepSpeed's, under whose stage 3 parameters are made in pieces; such a model
    runs in its engine only, where the rest of the proof is. Raises: ConfigError, ProofError.
    """
    config = rope_plan.apply(plan, base_config(base))
    if base.scratch is not None:
        if loading:
            raise ConfigError("model.scratch is set; weights of fewer bits are those of a trained base; set model.path")
        model = pieces.from_nothing(config, dtype, seed, settings)
    else:
        with pieces.made(settings):
            model = AutoModelForCausalLM.from_pretrained(
                str(base.path),
                revision=base.revision,
                trust_remote_code=base.trust_remote_code,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                **(loading or {}),
            )
    return _ready(model, plan, attention_kernel, when, wrap, computes, s2_group)


def load_trained(
    folder: Path, plan: RopePlan, *, dtype: torch.dtype | str, attention_kernel: str = "auto"
) -> PreTrainedModel:
    """A model that the train stage exported, proved against the plan as it stands in its own files. `dtype` auto: its own."""
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, use_safetensors=True)
    return _ready(model, plan, attention_kernel, "after reload")


def _ready(
    model: PreTrainedModel,
    plan: RopePlan,
    kernel: str,
    when: str,
    wrap: Wrap | None = None,
    computes: torch.dtype | None = None,
    s2_group: int | None = None,
) -> PreTrainedModel:
    """Proved, and with its attention kernel: the one asked for, or in fp32 outside training, which only sdpa takes, `auto`'s."""
    proof.restore(model, plan) if model.dtype != torch.float32 else None
    print(proof.prove(model, plan, when, layers=not pieces.are(model)))
    attention.refuse(model.config, model.config.model_type, s2_group)
    refuse_unknown_heads(model)
    if not pieces.are(model):
        attention.prove(model)
    kernel = kernel if computes else attention.of_dtype(kernel, model.dtype)
    needs = attention.needs(model, computes or model.dtype)
    model.set_attn_implementation(attention.register(kernel, wrap, needs, s2_group))
    return model


def rescale(model: PreTrainedModel, plan: RopePlan) -> None:
    """Put another plan into a live model, in place: its rotary modules are made anew from its config, and proved.

    Not for decoupled heads (DeepSeek), whose softmax scale is set when the model is built. Raises: ProofError.
    """
    config = rope_plan.apply(plan, model.config)
    for name, module in proof.rotary_modules(model).items():
        kind: Any = type(module)
        model.set_submodule(name, kind(config=config).to(model.device))
    proof.prove(model, plan, "after another plan was put in")


def refuse_unknown_heads(model: PreTrainedModel) -> None:
    """The chunked loss computes logits as hidden x head; what a model does beyond that is refused by name."""
    for key in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(model.config, key, None) not in (None, 1, 1.0):
            raise ConfigError(
                f"model.path has {key} {getattr(model.config, key)}; its logits are not handled yet; choose another model"
            )
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise ConfigError("model.path has a bias on its output embedding; not handled yet; choose another model")


def check_vocabulary(model: PreTrainedModel, vocab_size: int) -> None:
    """Raises: ConfigError when the tokenizer has more words than the model has embeddings."""
    weight: Any = model.get_input_embeddings().weight
    rows = pieces.shape(weight)[0]
    if vocab_size > rows:
        raise ConfigError(
            f"model.path has {rows} embeddings and a tokenizer of {vocab_size} words; they must fit; mend the model folder"
        )
