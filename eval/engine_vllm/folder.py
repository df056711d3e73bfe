"""The folder that vLLM reads a column's model from."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import snapshot_download
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.train.base import Base, base_config
from ropewalk.train.rope import plan as plans
from ropewalk.train.rope.plan import RopePlan

FILES = ["*.json", "*.safetensors", "*.model", "*.py"]
CONFIG = "config.json"


@contextmanager
def model_folder(
    base: Base, plan: RopePlan, trained: Path | None, label: str, longest: int
) -> Iterator[Path]:
    """A trained model's own folder; else one with the base's files and a config with the plan.

    `longest`: tokens of the longest prompt with its reply. Raises: ConfigError where vLLM would
    not compute as many.
    """
    config = (
        AutoConfig.from_pretrained(trained) if trained else plans.apply(plan, base_config(base))
    )
    window = max(longest, _window(config))
    _refuse_beyond(config, label, longest)
    if trained is not None and window == _window(config):
        yield trained
        return
    config.max_position_embeddings = window  # type: ignore[attr-defined]
    with TemporaryDirectory() as folder:
        for file in (trained or _files(base)).iterdir():
            if file.name != CONFIG:
                (Path(folder) / file.name).symlink_to(file.resolve())
        config.save_pretrained(folder)
        yield Path(folder)


def _window(config: PreTrainedConfig) -> int:
    return int(config.max_position_embeddings)  # type: ignore[attr-defined]


def _files(base: Base) -> Path:
    assert base.path is not None
    if Path(base.path).is_dir():
        return Path(base.path)
    return Path(snapshot_download(base.path, revision=base.revision, allow_patterns=FILES))


def _refuse_beyond(config: PreTrainedConfig, label: str, longest: int) -> None:
    """vLLM's table of a scaled rope ends at its window; without scaling it goes on as asked."""
    parameters = getattr(config, "rope_parameters", None) or {}
    if longest > _window(config) and parameters.get("rope_type", "default") != "default":
        raise ConfigError(
            f"eval.backend is vllm; it computes {label} up to its window of {_window(config)} "
            f"tokens, and a prompt with its reply has {longest}; set eval.backend=transformers, "
            "or lower the lengths"
        )


def end_tokens(folder: Path) -> frozenset[int]:
    """The end-of-sequence tokens of the generation config, or else of the config."""
    if (folder / "generation_config.json").is_file():
        ids = GenerationConfig.from_pretrained(folder).eos_token_id
    else:
        config = AutoConfig.from_pretrained(folder).get_text_config(decoder=True)
        ids = getattr(config, "eos_token_id", None)
    if ids is None:
        return frozenset()
    return frozenset([ids] if isinstance(ids, int) else ids)
