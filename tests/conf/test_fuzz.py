"""Any value of any setting is taken or refused in a line that names the setting; never a traceback.

The settings, their types and bounds come from the declarations, so that a new setting is tried too.
"""

from collections.abc import Callable
from typing import Any, get_args, get_origin

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ropewalk.conf import declared
from ropewalk.conf import settings as listed
from ropewalk.conf.check import load, to_yaml
from ropewalk.conf.errors import ConfigError
from ropewalk.launch.config.compose import compose

GOOD = ("recipe=demo", "rope.factor=4")
SPECIAL = [
    *("", " ", "null", "~", "true", "on", "nan", "inf", "-inf", "-0", "0", "-1", "1", "1.5", "1e3"),
    *("1e400", "-1e-400", "9" * 30, "-" + "9" * 30, "9223372036854775808", "0x10", "010", "1_000"),
    *("2026-11-28", "2026_11_28", "[]", "[", "]", "{", "{}", "[[]]", "[1,2", "{a: 1}", "[a,b]"),
    *("[nan]", "[[1,2],[3,4]]", "{a: {b: c}}", "a=b", "a,b", "~/x", "ü", "😀", "'", '"a"'),
    *("${", "$", "${seed}", "${name}", "${nope}", "a" * 300),
    *("\n", "\t", "\x00", "\x85", "\ud800", "..", "/"),
]  # fmt: skip


def key_of(row: listed.Row) -> str:
    """A key of the demo: its source for NAME."""
    return row["name"].replace(".NAME.", ".stdlib.")


KEYS = sorted({key_of(row) for row in listed.rows() if "[]" not in row["name"]})


def values(key: str) -> st.SearchStrategy[str]:
    """Values near the setting's bounds and of other types; text of all kinds."""
    kind = declared.required_type(declared.type_of(key))
    rule = declared.field_of(key).metadata.get("rule") if declared_field(key) else None
    near: list[str] = []
    for bound in (rule.at_least, rule.above, rule.at_most, rule.below) if rule else ():
        near += [str(bound), str(bound - 1), str(bound + 1), str(-bound)]
    near += [str(choice) for choice in (rule.one_of if rule else ())]
    numbers = st.integers().map(str) | st.floats().map(str)
    if get_origin(kind) is list:
        item = numbers if get_args(kind)[0] in (int, float) else st.text(max_size=5)
        numbers = st.lists(item, max_size=4).map(lambda items: f"[{','.join(items)}]")
    choices = st.sampled_from([*near, *SPECIAL]) if near else st.sampled_from(SPECIAL)
    return choices | numbers | st.text(max_size=12)


def declared_field(key: str) -> bool:
    try:
        declared.field_of(key)
    except KeyError:
        return False
    return True


@st.composite
def overrides(draw: Callable[..., Any]) -> list[str]:
    """One to three settings with any values, on top of the demo."""
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True))
    return [f"{key}={draw(values(key))}" for key in keys]


def check_one(words: list[str], folder: Any) -> None:
    try:
        config = compose([*GOOD, *words])
    except ConfigError as error:
        lines = str(error).splitlines()
        names = [word.partition("=")[0] for word in words]
        assert lines and all(line.strip() for line in lines)
        assert any(names_setting(line, names) for line in lines), (words, lines)
        return
    file = folder / "config.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert load(file) == config


def names_setting(line: str, names: list[str]) -> bool:
    """Whether a line names one of the settings that were changed, or a setting beside it."""
    words = [word for name in names for word in (name, *name.rsplit(".", 1))]
    return any(word in line for word in words)


def fuzz(examples: int) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        options = settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        return options(given(words=overrides())(function))

    return decorate


@fuzz(120)
def test_a_share_of_configurations(
    tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    check_one(words, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@fuzz(2000)
def test_two_thousand_configurations(
    tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    check_one(words, tmp_path_factory.getbasetemp())
