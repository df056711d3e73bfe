"""A base that brings its own code: refused unasked, broken code told, and its files taken along."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from ropewalk.conf.errors import ConfigError
from ropewalk.train import remote_code
from ropewalk.train.base import Base, base_config

CONFIGURATION = """\
from transformers import LlamaConfig


class OwnConfig(LlamaConfig):
    model_type = "own_llama"
"""
MODELING = """\
from transformers import LlamaForCausalLM

from .configuration_own import OwnConfig
from .own_helpers import describe


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
    describe = staticmethod(describe)
"""
TOKENIZATION = """\
from transformers import PreTrainedTokenizerFast

from .own_words import WORDS


class OwnTokenizerFast(PreTrainedTokenizerFast):
    words = WORDS
"""
CODE = {
    "configuration_own.py": CONFIGURATION,
    "modeling_own.py": MODELING,
    "own_helpers.py": "from .own_words import WORDS\n\n\ndef describe():\n    return WORDS\n",
    "own_words.py": "WORDS = 'laid'\n",
    "tokenization_own.py": TOKENIZATION,
}
AUTO_MAP = {
    "AutoConfig": "configuration_own.OwnConfig",
    "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
}
TOKENIZER_MAP = {"AutoTokenizer": [None, "tokenization_own.OwnTokenizerFast"]}


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' cache of modules, apart from the user's and from other tests'."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for module in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, module)


@pytest.fixture
def own(tmp_path: Path, tokenizer: Any) -> Callable[..., Path]:
    """A folder whose config and tokenizer name code of their own."""

    def make(name: str = "own", model_type: str = "own_llama") -> Path:
        folder = tmp_path / name
        tiny_model(vocab_size=300).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        edit(folder / "config.json", model_type=model_type, auto_map=AUTO_MAP)
        edit(
            folder / "tokenizer_config.json",
            tokenizer_class="OwnTokenizerFast",
            auto_map=TOKENIZER_MAP,
        )
        for file, text in CODE.items():
            (folder / file).write_text(text)
        return folder

    return make


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def auto_map(path: Path) -> Any:
    return json.loads(path.read_text()).get("auto_map")


def take_along(base: Path, folder: Path, *, trusted: bool) -> list[str]:
    return list(remote_code.take_along(str(base), None, folder, trusted=trusted))


def test_code_is_refused_unasked_with_the_way_out(own: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError) as refused:
        base_config(Base(str(own())))
    line = str(refused.value)
    assert "own; its architecture own_llama is code of its own (configuration_own.py)" in line
    assert "model.trust_remote_code=true" in line and "\n" not in line


@pytest.mark.parametrize(
    ("file", "text", "error"),
    [
        ("configuration_own.py", "def broken(:\n", "SyntaxError"),
        ("configuration_own.py", "raise RuntimeError('no')\n", "RuntimeError: no"),
        ("modeling_own.py", "import a_missing_package\n", "a_missing_package"),
        ("modeling_own.py", "X = 1\n", "AttributeError"),
    ],
)
def test_broken_code_is_one_line_with_its_error(
    own: Callable[..., Path], file: str, text: str, error: str
) -> None:
    folder = own()
    (folder / file).write_text(text)
    base = Base(str(folder), trust_remote_code=True)
    try:
        (line,) = remote_code.problems(base_config(base), base.name)
    except ConfigError as refused:
        line = str(refused)
    assert line.startswith("model.trust_remote_code is True; the code of own must build its model")
    assert error in line and "\n" not in line


def test_sound_code_has_no_problems(own: Callable[..., Path]) -> None:
    base = Base(str(own()), trust_remote_code=True)
    assert remote_code.problems(base_config(base), base.name) == []


def test_the_trained_folder_loads_without_its_base(
    own: Callable[..., Path], tmp_path: Path
) -> None:
    """transformers, with an empty cache of modules and no base, loads it."""
    base, folder = own(), tmp_path / "model"
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.py"))
    assert take_along(base, folder, trusted=True) == []
    assert {path.name for path in folder.glob("*.py")} == set(CODE)
    shutil.rmtree(base)
    kwargs = {"trust_remote_code": True}
    assert AutoModelForCausalLM.from_pretrained(folder, **kwargs).describe() == "laid"
    assert AutoTokenizer.from_pretrained(folder, **kwargs).words == "laid"


def test_a_reference_to_missing_code_is_left_out_and_told(
    own: Callable[..., Path], tmp_path: Path
) -> None:
    base, folder = own(), tmp_path / "model"
    extra = {"AutoModel": "modeling_gone.Own", "AutoModelForSequenceClassification": "a/b--c.D"}
    edit(base / "config.json", auto_map={**AUTO_MAP, **extra})
    shutil.copytree(base, folder)
    assert take_along(base, folder, trusted=True) == [
        "model/config.json: auto_map without AutoModel (no such code file)"
    ]
    del extra["AutoModel"]
    assert auto_map(folder / "config.json") == {**AUTO_MAP, **extra}


def test_code_that_was_not_run_is_not_named_by_the_trained_model(
    own: Callable[..., Path], tmp_path: Path
) -> None:
    """transformers has the architecture: it is trained as transformers builds it."""
    base, folder = own(model_type="llama"), tmp_path / "model"
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.py"))
    lines = take_along(base, folder, trusted=False)
    assert [line.split(":")[0] for line in lines] == [
        "model/config.json",
        "model/tokenizer_config.json",
    ]
    assert auto_map(folder / "config.json") is None
    assert not list(folder.glob("*.py"))
