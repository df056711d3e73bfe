"""Command-line words -> one composed configuration, with every problem told at once."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ropewalk.conf.check import check
from ropewalk.conf.data import DataConfig
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.scaling import ROPE_CLASSES
from ropewalk.conf.schema import Config
from ropewalk.conf.sources import SourceConfig
from ropewalk.launch.config import phases

# Hydra and OmegaConf answer some words (rope=null, schema=2, model.scratch.x=1) with bare exceptions of Python
SAID_BY_HYDRA = (HydraException, OmegaConfBaseException, ValueError, AssertionError, AttributeError)
GROUPS = ("recipe", "rope", "mixture")
KINDS = {
    "Integer": ("a whole number", "2048"),
    "Float": ("a number", "2.0"),
    "bool": ("true or false", "true"),
}
_VALUE = re.compile(
    r"Value '(.*)' (?:of type '.*' could not be converted to (Integer|Float)|is not a valid (bool)\b)",
    re.S,
)
_LENGTHS = phases.LENGTHS  # their keys are ranges such as <4K, which Hydra's grammar cannot spell
_SOURCE = re.compile(r"^(data\.(sources\.[^.=]+\.[^.=]+|length_weights|buckets)=)")


def register() -> None:
    """Put the dataclasses where the YAML finds them (`/schema/...`)."""
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config)
    for method, kind in ROPE_CLASSES.items():
        store.store(group="schema/rope", name=method, node=kind)


def split(words: Sequence[str]) -> tuple[list[str], DictConfig]:
    """Hydra's words, and what it would refuse: `data.sources.NAME.key=value`, since a new source is a new key, and numbers by length."""
    sources = [word for word in words if _SOURCE.match(word)]
    return [word for word in words if word not in sources], source_values(sources)


def source_values(words: Sequence[str]) -> DictConfig:
    """Values to the letter: as YAML, `*.py` is an alias, `2024_01` a number and `x #1` half a comment. Only what goes by length is YAML."""
    found = OmegaConf.create({})
    for word in words:
        key, value = word.split("=", 1)
        by_length = key.rsplit(".", 1)[-1] in _LENGTHS
        OmegaConf.update(
            found, key, None if value == "null" else _by_length(value) if by_length else value
        )
    return found


def _by_length(text: str) -> Any:
    """`{"<4K": 0.1}`; the text as it is where it is no mapping, which the check refuses."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, dict) else text


def compose(overrides: Sequence[str]) -> Config:
    """The checked configuration. Raises: ConfigError listing what is wrong, one line each."""
    try:
        words, sources = split(overrides)
        return finish(node(words), sources)
    except SAID_BY_HYDRA as error:
        wrong = _each(overrides)
        lines = [_told(word.lstrip("+"), problem) for word, problem in wrong.items()] or [
            _line(error)
        ]
        raise ConfigError("\n".join(lines + _rest(overrides, wrong))) from None


def _told(word: str, problem: str) -> str:
    """The word before its problem, unless that names it already."""
    key = word.split("=")[0]
    return problem if problem.startswith((f"{key} is ", f"{key}[")) else f"{word}: {problem}"


def _rest(overrides: Sequence[str], wrong: dict[str, str]) -> list[str]:
    """What check() says of the other words, but for what only the wrong ones would have set."""
    if not wrong or any(word.split("=")[0].lstrip("+") in GROUPS for word in wrong):
        return []
    try:
        words, sources = split([word for word in overrides if word not in wrong])
        finish(node(words), sources)
    except ConfigError as error:
        keys = [word.lstrip("+~").split("=")[0] for word in wrong]
        return [
            line for line in str(error).splitlines() if not any(_answers(key, line) for key in keys)
        ]
    except SAID_BY_HYDRA:
        pass
    return []


def _answers(key: str, line: str) -> bool:
    """Whether a problem may be there only for want of `key`: it is of it, or names it (`needs a factor or a target_length`)."""
    section, name = key.split(".")[0], re.escape(key.rsplit(".", 1)[-1])
    beside = line.startswith(f"{section}.") and re.search(rf"(?<![.\w]){name}\b", line)
    return line.startswith(key) or bool(beside) or bool(re.search(rf"\b{re.escape(key)}\b", line))


def node(words: Sequence[str]) -> DictConfig:
    """What YAML and Hydra's words say, unchecked."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_module("ropewalk.conf", version_base="1.3"):
        return hydra_compose("config", overrides=list(words))


def finish(composed: DictConfig, sources: DictConfig) -> Config:
    """Add what the command line says of the sources, and check the whole. Numbers by length are replaced, not added to a preset's."""
    OmegaConf.set_struct(composed, False)
    for section in (
        "data",
        *(f"data.sources.{name}" for name in OmegaConf.select(sources, "data.sources") or ()),
    ):
        for key in (f"{section}.{name}" for name in _LENGTHS):
            if OmegaConf.select(sources, key) is not None and OmegaConf.select(composed, key):
                OmegaConf.update(composed, key, {}, merge=False)
    whole: Any = OmegaConf.merge(composed, sources)
    if whole.phase:
        raise ConfigError(
            f"phase is {whole.phase}; it is written into the settings of each of `phases`; leave it out"
        )
    return phases.checked(whole, _line) if whole.phases else check(whole)


def _each(overrides: Sequence[str]) -> dict[str, str]:
    """Each wrong word and what is wrong with it: composed one at a time, so that the second mistake is told with the first."""
    words = [w for w in overrides if not _SOURCE.match(w)]
    groups = [w for w in words if w.split("=")[0].lstrip("+") in GROUPS or w.startswith("hydra.")]
    for word in groups:
        if problem := _try([*[g for g in groups if g.startswith("hydra.")], word]):
            return {word: problem}
    tried = {
        w: _try_source(w) if _SOURCE.match(w) else _try([*groups, w])
        for w in overrides
        if w not in groups
    }
    return {word: problem for word, problem in tried.items() if problem}


def _try(words: Sequence[str]) -> str | None:
    try:
        node(words)
    except SAID_BY_HYDRA as error:
        return _line(error)
    return None


def _try_source(word: str) -> str | None:
    key, _, value = word.partition("=")
    try:
        values = source_values([f"{key.rsplit('.', 1)[1]}={value}"])
        kind = SourceConfig if key.startswith("data.sources.") else DataConfig
        OmegaConf.merge(OmegaConf.structured(kind), values)
    except SAID_BY_HYDRA as error:
        if key.rsplit(".", 1)[1] in _LENGTHS:
            return f'{key} is {value}; it must be numbers by ranges of length; e.g. \'{key}={{"<4K": 0.1, ">8K": 2}}\''
        return _line(error, key)
    return None


def _line(error: BaseException, whole_key: str = "") -> str:
    """Hydra's message in one line; its cause where the cause says more. A value of a wrong kind in our own words."""
    cause = error.__cause__
    text = str(cause if isinstance(cause, OmegaConfBaseException) else error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [
        line
        for line in lines
        if not line.startswith(("full_key", "object_type", "reference_type", "Set the environment"))
    ]
    key = whole_key or next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key")), ""
    )
    said = " ".join(kept)
    if key and (found := _VALUE.match(said)):
        return _of_kind(key, found[1], found[2] or found[3])
    return f"{said} (at {key})" if key and key not in said else said


def _of_kind(key: str, value: str, kind: str) -> str:
    """What OmegaConf could not convert; an item of a list has no word of its own to give as an example."""
    rule, example = KINDS[kind]
    way_out = "correct it" if key.endswith("]") else f"e.g. {key}={example}"
    return f"{key} is {value or 'empty'}; it must be {rule}; {way_out}"


def config_dir_override(folder: str) -> str:
    """`--config-dir DIR` as the override Hydra takes for it. Raises: ConfigError when it is no folder."""
    if not Path(folder).is_dir():
        raise ConfigError(
            f"--config-dir is {folder}; it must be a folder with YAML such as recipe/mine.yaml; create it"
        )
    return f"hydra.searchpath=[file://{Path(folder).resolve()}]"


def sweep(words: Sequence[str]) -> list[list[str]]:
    """Every combination of `key=a,b`, as Hydra's basic sweeper splits them; each run is named by what differs."""
    register()
    GlobalHydra.instance().clear()
    hydra_words, sources = (
        [w for w in words if not _SOURCE.match(w)],
        [w for w in words if _SOURCE.match(w)],
    )
    try:
        parsed = OverridesParser.create().parse_overrides(hydra_words)
    except HydraException as error:
        raise ConfigError(_line(error)) from None
    combinations = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    swept = {o.key_or_group for o in parsed if o.is_sweep_override()} - {"name"}
    found = []
    for combination in combinations:
        named = [w for w in combination if w.split("=")[0].lstrip("+") in swept]
        label = "-".join(w.split("=", 1)[1] for w in named)
        name = next(
            (w.split("=", 1)[1] for w in combination if w.startswith("name=")), None
        ) or _recipe_name(combination)
        rest = [w for w in combination if not w.startswith("name=")]
        found.append([*rest, *sources, f"name={name}-{label}" if label else f"name={name}"])
    return found


def _recipe_name(words: Sequence[str]) -> str:
    return next((w.split("=", 1)[1] for w in words if w.startswith("recipe=")), "custom")
