"""`phases` -> the settings of each phase, composed on top of the run's and checked beforehand."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ropewalk.conf import phases, renamed
from ropewalk.conf.check import check
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import ROPE_METHODS
from ropewalk.conf.schema import Config


def check_phases(composed: DictConfig, verb: str, wrong: Sequence[str] = ()) -> Config:
    """The run's configuration, its phases not yet applied.

    `verb` decides what must be set; `wrong`: keys whose value is refused already.

    Raises: ConfigError with the problems of all phases, each line once; a problem that not every
        phase has begins with `phases[NUMBER].`
    """
    listed: Any = OmegaConf.to_container(composed.phases)
    if problems := list(phases.problems(listed)):
        raise ConfigError("\n".join(problems))
    by_phase = [_problems(composed, phase, verb, wrong) for phase in listed]
    common = [line for line in by_phase[0] if all(line in lines for lines in by_phase)]
    specific = [
        f"phases[{number}]{'.' if line.startswith(phases.SECTIONS) else ': '}{line}"
        for number, lines in enumerate(by_phase)
        for line in lines
        if line not in common
    ]
    if problems := common + specific or list(_carry_problems(composed, listed)):
        raise ConfigError("\n".join(problems))
    _fill_required(composed, listed[-1])
    return OmegaConf.to_object(composed)  # type: ignore[return-value]


def _fill_required(composed: DictConfig, phase: Mapping[str, Any]) -> None:
    """Copy required values that every phase sets to the run's level.

    Nothing reads them there; without them the configuration does not convert.
    """
    for key in OmegaConf.missing_keys(composed):
        OmegaConf.update(composed, key, OmegaConf.select(apply_phase(composed, phase), key))


def _carry_problems(composed: DictConfig, listed: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """An adapter is merged into the weights after its phase, so its moments fit no next adapter."""
    for number, phase in enumerate(listed):
        if phase.get("carry_optimizer") and any(
            apply_phase(composed, near).train.lora.rank for near in listed[number - 1 : number + 1]
        ):
            yield (
                f"phases[{number}].carry_optimizer is True; with train.lora each phase trains an "
                "adapter of its own; leave it out"
            )


def _problems(
    composed: DictConfig, phase: Mapping[str, Any], verb: str, wrong: Sequence[str]
) -> list[str]:
    pairs = {key: renamed.renaming(f"{key}={value}") for key, value in phase.items()}
    former = [renamed.message(*pair) for pair in pairs.values() if pair]
    present = {pair[1] if (pair := pairs[key]) else key: value for key, value in phase.items()}
    try:
        check(apply_phase(composed, present), verb, wrong)
    except ConfigError as error:
        return former + str(error).splitlines()
    except (OmegaConfBaseException, ValueError, AttributeError, KeyError) as error:
        return [*former, " ".join(str(error).split())]
    return former


def apply_phase(composed: DictConfig, phase: Mapping[str, Any]) -> DictConfig:
    """A copy of the run's values with a phase's on top.

    `rope: METHOD` changes the method and keeps the factor and window that were set.
    """
    merged, values = composed.copy(), phases.settings(phase)
    OmegaConf.set_struct(merged, False)
    merged.phase = 1  # any number above 0 marks the values of one phase
    method = values.pop("rope", None) or values.pop("rope.method", None)
    if method is not None:
        merged.rope = _with_method(merged.rope, str(method))
    for key, value in values.items():
        if key.split(".")[0] == "data":
            merged = _merge_data(merged, key, value)
        else:
            OmegaConf.update(merged, key, value, force_add=True)
    return merged


def _merge_data(merged: DictConfig, key: str, value: object) -> DictConfig:
    """Set a key of `data`; null leaves a source out.

    A merge, unlike an update, gives a new source its dataclass. Raises: ValueError.
    """
    *section, name = key.split(".")
    if section == ["data", "sources"] and value is None:
        if name not in merged.data.sources:
            known = ", ".join(map(str, merged.data.sources)) or "none"
            raise ValueError(f"{key} is null; the sources are {known}; name one of them")
        del merged.data.sources[name]
        return merged
    nested = OmegaConf.create({})
    OmegaConf.update(nested, key, value)
    if key.endswith(phases.REPLACED_MAPPINGS) and OmegaConf.select(merged, key):
        OmegaConf.update(merged, key, {}, merge=False)
    return OmegaConf.merge(merged, nested)  # type: ignore[return-value]


def _with_method(rope: DictConfig, method: str) -> Any:
    if method not in ROPE_METHODS:
        known = ", ".join(ROPE_METHODS)
        raise ValueError(f"rope is {method}; it must be one of {known}; choose one")
    keys = ["original_max_position_embeddings"]
    if method != "none":
        keys += ["factor", "target_length", "max_position_embeddings"]
    kwargs = {key: rope[key] for key in keys}
    return OmegaConf.structured(ROPE_METHODS[method](method=method, **kwargs))


def phase_configs(config: Config) -> list[Config]:
    """The configuration of each phase in order; `[config]` without phases.

    The last phase has the run's own name and folder.
    """
    if not config.phases:
        return [config]
    folder, count = Path(config.runs_dir) / config.name / phases.FOLDER, len(config.phases)
    configs = []
    for number, phase in enumerate(config.phases, 1):
        values = replace(check(apply_phase(OmegaConf.structured(config), phase)), phase=number)
        if number < count:
            name = phases.folder(config.phases, number)
            values = replace(values, name=name, runs_dir=str(folder))
        configs.append(values)
    return configs
