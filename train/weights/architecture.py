"""The headers of the files against the parameters of the architecture, by transformers' own rules.

transformers' loader itself is run on tensors without storage: what it would leave over, draw at
random or not fit is known without reading a value.
"""

from dataclasses import dataclass, field

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import convert_and_load_state_dict_in_model
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils.loading_report import LoadStateDictInfo

from ropewalk.train.model.geometry import head_dim
from ropewalk.train.weights.conversion import Conversion, filled_twice, is_numbered_in_full
from ropewalk.train.weights.shards import Tensors
from ropewalk.train.weights.values import FLOATS

SHARE = "partial_rotary_factor"
UNEQUAL_SIZES = ("The size of tensor a", "Attempting to broadcast")
"""Beginnings of torch's messages."""


@dataclass
class Difference:
    """Names of tensors in the files, or of parameters, by what is wrong with them."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshaped: list[str] = field(default_factory=list)
    """With both shapes."""
    twice: list[str] = field(default_factory=list)
    """Several tensors for one parameter."""
    few_bits: list[str] = field(default_factory=list)
    """Integers or floats of 8 bits for a parameter of floats, with the dtype."""
    unused: list[str] = field(default_factory=list)
    """Harmless: transformers leaves them out knowingly."""


def build_without_storage(config: PreTrainedConfig, trust_remote_code: bool) -> PreTrainedModel:
    """The architecture's model on the meta device."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(  # type: ignore[no-any-return]
            config, trust_remote_code=trust_remote_code
        )


def rotary_problem(model: PreTrainedModel) -> str | None:
    """A line when the model's code does not turn the share of a head that its config says.

    `partial_rotary_factor` may stand in any config. Llama's code, for one, makes its unscaled table
    for all dimensions and its scaled ones for the share, which it cannot apply. `model`: on the
    meta device.
    """
    config = model.config.get_text_config(decoder=True)
    parameters = getattr(config, "rope_parameters", None) or {}
    share = parameters.get(SHARE, getattr(config, SHARE, None))
    if share in (None, 1.0):
        return None
    if _table_dims(model) == {int(head_dim(config) * share)} and _computes(model):
        return None
    return (
        f"its config.json has {SHARE} {share}, and {type(model).__name__} turns all dimensions of "
        "a head; remove it"
    )


def _table_dims(model: PreTrainedModel) -> set[int]:
    """Rotary dimensions of the tables that the model holds."""
    buffers = model.named_buffers()
    return {2 * table.shape[-1] for name, table in buffers if name.endswith("inv_freq")}


def _computes(model: PreTrainedModel) -> bool:
    """Whether two tokens pass, as far as the meta device can tell."""
    ids = torch.zeros(1, 2, dtype=torch.long, device="meta")
    mask = torch.zeros(1, 1, 2, 2, device="meta")  # given, since one is made of the ids' values
    try:
        model(input_ids=ids, attention_mask=mask, use_cache=False)
    except RuntimeError as error:
        return not str(error).startswith(UNEQUAL_SIZES)
    return True


def compare(tensors: Tensors, model: PreTrainedModel) -> Difference:
    """`model`: without storage; its parameters are replaced."""
    conversion = Conversion(model)
    shared = _shared_names(model)
    sources = conversion.sources(tensors)
    info = _load_without_storage(tensors, model)
    info.missing_keys -= {
        name for name in info.missing_keys if shared.get(name, set()) & {*sources}
    }
    left_over = {
        name: target
        for name in tensors
        if (target := conversion.target(name)[0]) not in conversion.parameters
    }
    info.unexpected_keys = {*left_over.values()}
    model._adjust_missing_and_unexpected_keys(info)
    result = Difference()
    for name, target in left_over.items():
        (result.unexpected if target in info.unexpected_keys else result.unused).append(name)
    for target, by_pattern in sources.items():
        result.twice += filled_twice(by_pattern)
        if conversion.parameters[target].is_floating_point():
            result.few_bits += [
                f"{name} ({tensors[name].dtype})"
                for names in by_pattern.values()
                for name in names
                if tensors[name].dtype not in FLOATS
            ]
    _explain(result, info, conversion, sources, tensors)
    return result


def _shared_names(model: PreTrainedModel) -> dict[str, set[str]]:
    """Names of one tensor by each of its names: modules that code of its own shares."""
    by_tensor: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        by_tensor.setdefault(id(parameter), set()).add(name)
    return {name: names for names in by_tensor.values() for name in names}


def _load_without_storage(tensors: Tensors, model: PreTrainedModel) -> LoadStateDictInfo:
    """What transformers' loader reports. Tied parameters are not missing."""
    state = {
        name: torch.empty(tensor.shape, dtype=FLOATS.get(tensor.dtype), device="meta")
        for name, tensor in tensors.items()
    }
    loading = LoadStateDictConfig(
        device_map={"": "meta"},
        dtype=model.dtype,
        weight_mapping=get_model_conversion_mapping(model),  # type: ignore[arg-type]
    )
    info, _ = convert_and_load_state_dict_in_model(model, state, loading)
    model.tie_weights(missing_keys=info.missing_keys, recompute_mapping=False)
    return info


def _explain(
    result: Difference,
    info: LoadStateDictInfo,
    conversion: Conversion,
    sources: dict[str, dict[str, list[str]]],
    tensors: Tensors,
) -> None:
    """Names of the files for parameters that miss a tensor or do not get their shape."""
    misnumbered = {
        target
        for target, by_pattern in sources.items()
        if any("*" in p and not is_numbered_in_full(names) for p, names in by_pattern.items())
    }
    failed = {key for key, *_ in info.mismatched_keys} | {*info.conversion_errors} | misnumbered
    if not failed | info.missing_keys:
        return
    stored = conversion.stored(tensors)
    stored_by_target = conversion.sources(stored)
    for target in sorted(failed | info.missing_keys):
        present = {n for names in sources.get(target, {}).values() for n in names}
        expected = {n for names in stored_by_target.get(target, {}).values() for n in names}
        if not expected or (present and not present & expected):
            _explain_by_parameter(result, target, present, conversion, tensors)
            continue
        result.missing += sorted(expected - present)
        result.unexpected += sorted(present - expected)
        result.misshaped += [
            f"{name} is {tensors[name].shape}, not {stored[name]}"
            for name in sorted(present & expected)
            if tensors[name].shape != stored[name]
        ]


def _explain_by_parameter(
    result: Difference, target: str, present: set[str], conversion: Conversion, tensors: Tensors
) -> None:
    """The same where the files have names that transformers would not write."""
    shape = tuple(conversion.parameters[target].shape)
    if not present:
        result.missing.append(target)
    result.misshaped += [
        f"{name} is {tensors[name].shape}, not {shape}" for name in sorted(present)
    ]
