"""RULER's texts as the installed lm-evaluation-harness has them, read from its files.

Its modules are parsed, not imported: they load data sets, and need packages of their own. What it
has wrong in version 0.4.13 is put right: the space before an answer's beginning, and a
misspelt word.
"""

import ast
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ropewalk.conf.errors import ConfigError
from ropewalk.eval.ruler.wording import Wording, wording_of

PACKAGE = "lm_eval"
KINDS = {"{type_needle_v}": "{kinds}"}
SINGULAR = (("Some", "A"), ("are all", "is"), ("are", "is"), ("answers", "answer"))
"""RULER's replacements in a template where one value is asked."""


def wording(trailing_space: bool) -> Wording:
    """`trailing_space`: keep the space at the end of a prefix, where RULER has one.

    Raises: ConfigError where the package is absent or has other files than those known here.
    """
    folder = _folder()
    try:
        texts = _texts(folder)
    except (OSError, SyntaxError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(
            f"eval.ruler.mode is ruler; lm-eval {version(PACKAGE)} does not hold RULER's texts "
            f"where version 0.4.13 has them ({type(error).__name__}: {error}); pip install "
            "lm-eval==0.4.13, or set eval.ruler.wording=FILE"
        ) from error
    if not trailing_space:
        texts = {
            name: text.rstrip(" ") if name.endswith("_prefix") else text
            for name, text in texts.items()
        }
    return wording_of(f"lm-eval {version(PACKAGE)}", texts, "lm-eval's RULER")


def _folder() -> Path:
    """Raises: ConfigError."""
    try:
        spec, _ = find_spec(PACKAGE), version(PACKAGE)
    except (ImportError, PackageNotFoundError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            "eval.ruler.mode is ruler; its prompts have RULER's wording, which is read from "
            "lm-eval; pip install 'ropewalk[eval]', set eval.ruler.wording=FILE, or set "
            "eval.ruler.mode=ruler_exact"
        )
    return Path(spec.submodule_search_locations[0]) / "tasks" / "ruler"


def _texts(folder: Path) -> dict[str, str]:
    parse = {
        name: ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))
        for name in ("niah_utils", "prepare_niah", "vt_utils", "cwe_utils", "fwe_utils", "qa_utils")
    }
    niah = _named(_constant(parse["niah_utils"], "TEMPLATE"))
    one, many = _prefixes(parse["prepare_niah"])
    value, copy = _assignments(parse["vt_utils"])
    tracking = _constant(parse["vt_utils"], "CONFIG")["variable_tracking"]
    texts = {
        "needle": _named(_constant(parse["prepare_niah"], "NEEDLE")),
        "noise": _constant(parse["vt_utils"], "noise").strip(),
        "niah_one": _singular(niah),
        "niah_one_prefix": one.replace("{kinds}", "{kind}"),
        "niah_many": niah,
        "niah_many_prefix": many,
        "vt": tracking["template"],
        "vt_prefix": tracking["answer_prefix"].replace("assgined", "assigned"),
        "vt_value": value,
        "vt_copy": copy,
        "document": _constant(parse["qa_utils"], "DOCUMENT_PROMPT"),
    }
    for name in ("cwe", "fwe", "qa"):
        config = _constant(parse[f"{name}_utils"], "CONFIG")
        texts[name], texts[f"{name}_prefix"] = config["template"], config["answer_prefix"]
    return {
        name: f" {text.lstrip(' ')}" if name.endswith("_prefix") else text
        for name, text in texts.items()
    }


def _named(text: str) -> str:
    for theirs, ours in KINDS.items():
        text = text.replace(theirs, ours)
    return text


def _singular(template: str) -> str:
    for many, one in SINGULAR:
        template = template.replace(many, one)
    return template.replace("{kinds}", "{kind}")


def _constant(module: ast.Module, name: str) -> Any:
    """The literal that `name` is bound to, anywhere in a module. Raises: LookupError."""
    for node in ast.walk(module):
        if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == [name]:
            return ast.literal_eval(node.value)
    raise LookupError(name)


def _prefixes(module: ast.Module) -> tuple[str, str]:
    """Of one asked value and of several. Raises: LookupError."""
    for node in ast.walk(module):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "gen_prefix":
                    assert isinstance(value, ast.IfExp)
                    one, many = (_template(part) for part in (value.body, value.orelse))
                    return _named(one), _named(many)
    raise LookupError("gen_prefix")


def _assignments(module: ast.Module) -> tuple[str, str]:
    """A variable with its value, and one with another's. Raises: ValueError."""
    (chains,) = (
        node
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef) and node.name == "generate_chains"
    )
    strings = (node for node in ast.walk(chains) if isinstance(node, ast.JoinedStr))
    value, copy = sorted(strings, key=lambda node: node.lineno)
    return _template(value, "name", "value"), _template(copy, "name", "other")


def _template(node: ast.expr, *names: str) -> str:
    """An f-string with `names` in the places of its values, or with the values' own names."""
    if not isinstance(node, ast.JoinedStr):
        raise TypeError(ast.unparse(node))
    parts, rest = [], list(names)
    for part in node.values:
        if isinstance(part, ast.Constant):
            parts.append(str(part.value))
        else:
            own = next(n.id for n in ast.walk(part) if isinstance(n, ast.Name))
            parts.append("{" + (rest.pop(0) if names else own) + "}")
    return "".join(parts)
