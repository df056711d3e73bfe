"""The base model: the location of its weights, and its config."""

import copy
import importlib.util
from dataclasses import dataclass, field
from functools import cached_property
from importlib.machinery import ModuleSpec
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, LlamaConfig, PreTrainedConfig

from ropewalk.conf import phases
from ropewalk.conf.artifacts.manifest import fingerprint
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.model import ModelConfig, ScratchConfig
from ropewalk.conf.schema import Config
from ropewalk.train import identity, remote_code
from ropewalk.train.gguf_base.convert import folder_of as gguf_folder
from ropewalk.train.weights.config_file import config_problems, read_config

BUILTIN = "builtin:"

BASES = Path(__file__).parent / "bases"
UNREADABLE = (OSError, ValueError, LookupError, TypeError, ArithmeticError, AttributeError)
"""What transformers raises for a config that it cannot read."""


@dataclass(frozen=True)
class Base:
    """The base's location: a folder or hub name, or a model to initialise from scratch."""

    path: str | None  # None: from scratch
    revision: str | None = None  # the commit of a hub model
    trust_remote_code: bool = False
    scratch: ScratchConfig | None = None
    cache: Path | None = None  # where the digests of the folder's files are recorded
    drawn: PreTrainedConfig | None = field(default=None, compare=False)
    """A config whose weights are drawn at random, in place of files: of a self-test."""

    @property
    def name(self) -> str:
        """For messages and artifacts: no user path."""
        if self.path is None:
            return "from scratch"
        return Path(self.path).name if Path(self.path).is_dir() else self.path

    @cached_property
    def identity(self) -> str:
        """Fingerprint of what the model is made of. The first look reads all weights of a folder.

        Raises: ConfigError for a file that cannot be read.
        """
        if self.path is None:
            return fingerprint(vars(self.scratch))
        if self.revision is not None:
            return identity.commit_identity(self.revision)
        assert self.cache is not None, "a folder needs a cache for its digests"
        return identity.folder_identity(Path(self.path), self.cache)


def resolve_base(config: Config, cache: Path) -> Base:
    """The weights that training starts from, the base's or the previous phase's.

    Raises: ConfigError.
    """
    model = config.model
    if previous := phases.previous_run_dir(config):
        trained = str(previous / "train" / "model")
        model = ModelConfig(path=trained, trust_remote_code=model.trust_remote_code)
    return locate(model, cache)


def locate(model: ModelConfig, cache: Path) -> Base:
    """Find the base; a GGUF file is converted once into the cache. Raises: ConfigError."""
    if model.scratch is not None:
        return Base(None, scratch=model.scratch)
    assert model.path is not None
    path = model.path
    if path.startswith(BUILTIN):
        path = _builtin(path.removeprefix(BUILTIN))
    elif model.package and (spec := importlib.util.find_spec(model.package)):
        path = gguf_folder(_packaged_gguf(spec), cache)
    elif model.gguf_file is not None:
        path = gguf_folder(Path(path).expanduser() / model.gguf_file, cache)
    folder = Path(path).expanduser()
    if folder.is_dir():
        if folder.name in ("", ".."):  # `.` and `..` carry no name for messages
            folder = folder.resolve()
        _refuse_other_folder(folder)
        return Base(str(folder), None, model.trust_remote_code, cache=cache)
    if folder.suffix == ".gguf" and folder.is_file():
        raise ConfigError(
            f"model.path is {folder.name}; a GGUF file is given by its folder and its name; set "
            f"model.path to its folder and model.gguf_file={folder.name}"
        )
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise ConfigError(
            f"model.path is {model.path}; it must be an existing folder or a hub name; "
            "correct the path"
        )
    commit = identity.hub_commit(path, model.revision)
    return Base(path, commit, model.trust_remote_code)


def _builtin(name: str) -> str:
    folder = BASES / name
    if not (folder / "model.safetensors").is_file():
        shipped = ", ".join(sorted(BUILTIN + p.name for p in BASES.glob("*") if p.is_dir()))
        raise ConfigError(
            f"model.path is {BUILTIN}{name}; it must name a base that ropewalk ships "
            f"({shipped or 'none'}); or run make base-model"
        )
    return str(folder)


def _packaged_gguf(package: ModuleSpec) -> Path:
    roots = package.submodule_search_locations or [str(Path(str(package.origin)).parent)]
    files = sorted(file for root in roots for file in Path(root).rglob("*.gguf"))
    if len(files) != 1:
        raise ConfigError(
            f"model.package is {package.name}; it must carry one GGUF file, {len(files)} found; "
            "unset it"
        )
    return files[0]


def _refuse_other_folder(folder: Path) -> None:
    """Raises: ConfigError for a folder without a config."""
    gguf = sorted(path.name for path in folder.glob("*.gguf"))
    if gguf and not (folder / "config.json").is_file():
        raise ConfigError(
            f"model.path is {folder.name}; it is a folder of GGUF files; set model.gguf_file to "
            f"one of them, such as {gguf[0]}"
        )
    if not (folder / "config.json").is_file():
        way_out = "give a Hugging Face model folder"
        if (folder / "adapter_config.json").is_file():
            way_out = "it is an adapter: merge it into its base (merge_and_unload of peft)"
        raise ConfigError(f"model.path is {folder.name}; it has no config.json; {way_out}")
    read_config(folder)


def weight_bytes(base: Base) -> int:
    """Of the files in the base's folder; of a hub name, whose files are not known here, those of
    70 billion weights in bf16; 0 without weights."""
    if base.path is None:
        return 0
    folder = Path(base.path)
    if not folder.is_dir():
        return 140_000_000_000
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def base_config(base: Base) -> PreTrainedConfig:
    """The base's own config, unscaled. Raises: ConfigError when it cannot be read."""
    if base.drawn is not None:
        return copy.deepcopy(base.drawn)
    if base.scratch is not None:
        sizes = vars(base.scratch).copy()
        theta = sizes.pop("rope_theta")
        return LlamaConfig(
            **sizes,
            rope_parameters={"rope_type": "default", "rope_theta": theta},
            bos_token_id=0,
            eos_token_id=0,
        )
    try:
        config = AutoConfig.from_pretrained(
            str(base.path), revision=base.revision, trust_remote_code=base.trust_remote_code
        )
    except (*UNREADABLE, StrictDataclassError) as error:
        if "trust_remote_code" in str(error) and not base.trust_remote_code:
            refusal = remote_code.refusal(str(base.path), base.revision, base.name)
            raise ConfigError(refusal) from error
        reason = " ".join(line.strip() for line in str(error).strip().splitlines()[:2])
        raise ConfigError(
            f"model.path is {base.name}; its config must be readable by transformers; {reason}; "
            "correct it, or model.path"
        ) from error
    except Exception as error:
        if not base.trust_remote_code:
            raise
        raise ConfigError(remote_code.broken_code(base.name, error)) from error
    if problems := config_problems(config, base.name):
        raise ConfigError("\n".join(problems))
    _reset_runtime_choices(config)
    return config  # type: ignore[no-any-return]


def _reset_runtime_choices(config: PreTrainedConfig) -> None:
    """Undo what a config.json says of the process that wrote it, not of the model.

    Outputs as tuples have no `logits`; a model that hands out its attention weights runs in eager
    attention only, and cannot be saved after another; a kernel by name may not be installed here.
    The trainer reads the logits, and chooses its own kernel.
    """
    config.return_dict = True
    config.output_attentions = config.output_hidden_states = False
    config._attn_implementation = None
