"""The weights of one base, held against its config before any data is written."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedConfig
from transformers.utils import logging as transformers_logging

from ropewalk.conf.log import log
from ropewalk.train.weights import architecture, config_file, values
from ropewalk.train.weights.shards import Tensors, read_tensors, shown

QUANTISED = re.compile(
    r"(scales?|scale_inv|qweight|qzeros|g_idx|absmax|quant_map|quant_state\S*|zero_point|_packed"
    r"|_blocks|SCB)$"
)
"""Ends of the names that quantised weights have beside them."""
INVALID = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
    ValueError, ImportError,
)  # fmt: skip
"""What the constructors of transformers' models raise for a config that cannot be."""


def weight_problems(
    folder: Path, config: PreTrainedConfig, subject: str, *, trust_remote_code: bool = False
) -> list[str]:
    """Lines about the weights in `folder` that would not be trained as `config` says.

    `subject`: begins each line, such as "model.path is NAME". Tensors that are knowingly left out
    are logged.
    """
    tensors: Tensors = {}
    unused: list[str] = []
    if quantised := config_file.quantization_problem(config.to_dict()):
        problems = [quantised]
    else:
        tensors, problems = read_tensors(folder)
    if not problems:
        problems, unused = _architecture_problems(tensors, config, trust_remote_code)
    if not problems:
        sample = values.sample({n: tensor for n, tensor in tensors.items() if n not in unused})
        if sample.not_finite:
            problems = [values.not_finite_problem(sample.not_finite)]
        if sample.zeros:
            log.info(f"weights: zeros only: {shown(sample.zeros)}")
        _tell_unread_files(folder, tensors)
    return [f"{subject}; {problem}" for problem in problems]


def _tell_unread_files(folder: Path, tensors: Tensors) -> None:
    """Other weights in the folder, such as Mistral's consolidated.safetensors."""
    read = {tensor.file.name for tensor in tensors.values()}
    if names := sorted(p.name for p in folder.glob("*.safetensors") if p.name not in read):
        log.info(f"weights: not read: {shown(names)}")


def _architecture_problems(
    tensors: Tensors, config: PreTrainedConfig, trust_remote_code: bool
) -> tuple[list[str], list[str]]:
    """The problems, and the names of tensors that are left out knowingly."""
    try:
        model = architecture.build_without_storage(config, trust_remote_code)
    except INVALID as error:
        reason = " ".join(str(error).split())[:200]
        line = f"transformers cannot build its config.json ({type(error).__name__}: {reason})"
        return [f"{line}; correct it"], []
    if problem := architecture.rotary_problem(model):
        return [problem], []
    with _quiet_transformers():
        difference = architecture.compare(tensors, model)
    if difference.unused:
        log.info(f"weights: not used by {type(model).__name__}: {shown(difference.unused)}")
    return _lines(difference, type(model).__name__), difference.unused


def _lines(difference: architecture.Difference, model: str) -> list[str]:
    scales = [name for name in difference.unexpected if QUANTISED.search(name)]
    unexpected = [name for name in difference.unexpected if name not in scales]
    few_bits = difference.few_bits + scales
    lines = {
        f"its files lack {shown(difference.missing)}, which {model} needs; nothing may be drawn at "
        "random; give all files of the model, or correct its config.json": difference.missing,
        f"its files hold {shown(unexpected)}, which {model} has no parameters for; nothing may be "
        "left over; correct its config.json (such as num_hidden_layers), or remove "
        "them": unexpected,
        f"{shown(difference.misshaped)}; weights and config.json must be of one model; correct "
        "its config.json, or give the weights of this model": difference.misshaped,
        f"{shown(difference.twice)} fill one parameter; one of them would be lost; remove the "
        "others": difference.twice,
        f"its files hold quantised weights ({shown(few_bits)}), and its config.json has no "
        "quantization_config; training needs weights in full precision; give the model in BF16, "
        "F16 or F32": few_bits,
    }
    return [line for line, names in lines.items() if names]


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bars and no warnings: what is wrong is returned."""
    verbosity = transformers_logging.get_verbosity()
    progress = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if progress:
            transformers_logging.enable_progress_bar()
