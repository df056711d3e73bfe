"""`phases` -> the settings of each: composed on top of the run's and checked before anything starts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ropewalk.conf import phases
from ropewalk.conf.check import check
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.scaling import ROPE_CLASSES
from ropewalk.conf.schema import Config

LENGTHS = ("length_weights", "buckets")  # mappings that are one value


def checked(composed: DictConfig, told: Any) -> Config:
    """The run's configuration, its phases not yet put in. `told(error)`: the line for a value of a wrong kind.

    Raises: ConfigError with the problems of all phases, each line once; what only some have begins with `phases[NUMBER].`
    """
    listed: Any = OmegaConf.to_container(composed.phases)
    if wrong := list(phases.problems(listed)):
        raise ConfigError("\n".join(wrong))
    each = [_problems(composed, phase, told) for phase in listed]
    common = [line for line in each[0] if all(line in lines for lines in each)]
    own = [
        _at(number, line)
        for number, lines in enumerate(each)
        for line in lines
        if line not in common
    ]
    if problems := common + own or list(_carried(composed, listed)):
        raise ConfigError("\n".join(problems))
    for key in OmegaConf.missing_keys(
        composed
    ):  # every phase sets it, else it were told: nothing reads the run's own
        OmegaConf.update(composed, key, OmegaConf.select(put(composed, listed[-1]), key))
    return OmegaConf.to_object(composed)  # type: ignore[return-value]


def _carried(composed: DictConfig, listed: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """An adapter is merged into the weights at the end of its phase, and the next one's is another."""
    adapted = [bool(put(composed, phase).train.lora.rank) for phase in listed]
    for number, phase in enumerate(listed):
        if phase.get("carry_optimizer") and any(adapted[number - 1 : number + 1]):
            yield f"phases[{number}].carry_optimizer is True; with train.lora each phase trains an adapter of its own; leave it out"


def _at(number: int, line: str) -> str:
    return f"phases[{number}]{'.' if line.startswith(phases.SECTIONS) else ': '}{line}"


def _problems(composed: DictConfig, phase: Mapping[str, Any], told: Any) -> list[str]:
    try:
        check(put(composed, phase))
    except ConfigError as error:
        return str(error).splitlines()
    except (OmegaConfBaseException, ValueError, AttributeError, KeyError) as error:
        return [told(error)]
    return []


def put(composed: DictConfig, phase: Mapping[str, Any]) -> DictConfig:
    """A phase on top of the run's values; `rope: METHOD` chooses a method, which keeps the window that was set."""
    found, values = composed.copy(), phases.settings(phase)
    OmegaConf.set_struct(found, False)
    found.phase = 1  # the values are one phase's now
    method = values.pop("rope", None) or values.pop("rope.method", None)
    if method is not None:
        found.rope = _method(found.rope, str(method))
    for key, value in values.items():
        if (
            key.split(".")[0] == "data"
        ):  # a new source finds its dataclass by merging, not by its key
            nested = OmegaConf.create({})
            OmegaConf.update(nested, key, value)
            if key.endswith(LENGTHS) and OmegaConf.select(found, key):
                OmegaConf.update(
                    found, key, {}, merge=False
                )  # numbers by length are replaced, not added to
            found = OmegaConf.merge(found, nested)  # type: ignore[assignment]
        else:
            OmegaConf.update(found, key, value, force_add=True)
    return found


def _method(rope: DictConfig, method: str) -> Any:
    if method not in ROPE_CLASSES:
        raise ValueError(
            f"rope is {method}; it must be one of {', '.join(ROPE_CLASSES)}; choose one"
        )
    kept = {} if method == "none" else {k: rope[k] for k in ("factor", "target_length")}
    return OmegaConf.structured(
        ROPE_CLASSES[method](
            method=method,
            original_max_position_embeddings=rope.original_max_position_embeddings,
            **kept,
        )
    )


def chain(config: Config) -> list[Config]:
    """The runs that a run is made of, in order; itself alone without phases. The last one has the run's own folder."""
    if not config.phases:
        return [config]
    runs, count = Path(config.runs_dir) / config.name / phases.FOLDER, len(config.phases)
    found = []
    for number, phase in enumerate(config.phases, 1):
        values = check(put(OmegaConf.structured(config), phase))
        place = (
            {"name": phases.folder(config.phases, number), "runs_dir": str(runs)}
            if number < count
            else {}
        )
        found.append(replace(values, phase=number, **place))  # type: ignore[arg-type]
    return found
