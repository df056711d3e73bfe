"""A user's recipe: each problem with file, line and way out. PyYAML's own reading is the oracle for
what an unquoted text would become."""

from pathlib import Path

import pytest
import yaml

from ropewalk.conf.errors import ConfigError
from ropewalk.launch.config.compose import compose, config_dir_override

HEAD = b"# @package _global_\n"
REST = ["model.path=./m", "rope.factor=2", "data.seq_len=64", "data.sources.a.path=./a"]
REST += ["train.steps=30", "train.optimizer.lr=0.1"]


def lines(folder: Path, content: bytes, *words: str) -> list[str]:
    """The problems of a recipe with this content; empty when it is taken."""
    (folder / "recipe").mkdir(exist_ok=True)
    (folder / "recipe" / "mine.yaml").write_bytes(content)
    try:
        compose(["recipe=mine", *REST, *words, config_dir_override(str(folder))])
    except ConfigError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize(
    ("content", "starts"),
    [
        (b"name: x\n", ["1: must be `# @package _global_`"]),
        (b"\xef\xbb\xbf" + HEAD + b"name: x\n", ["1: begins with a byte-order mark"]),
        (HEAD + b"name: x\ntrain:\n\tsteps: 3\n", ["4: has a tab; YAML indents with spaces"]),
        (HEAD + b"seed: 1\nname: x\nseed: 2\n", ["4: seed stands twice"]),
        (HEAD + b"name: x\ntrain: {steps: 3, steps: 4}\n", ["3: steps stands twice"]),
        (HEAD + "name: ü\n".encode("latin-1"), ["2: its bytes are not UTF-8"]),
        (b"# a comment\n" + HEAD + b"name: x\n", ["1: must be `# @package _global_`"]),
        (HEAD + b"name: x\ntrain:\n", ["3: train is "]),
        (HEAD + b"name: [x\n", ["3: is no YAML ("]),
        (HEAD + b"- x\n", ["1: must be settings"]),
        (HEAD + b"name: x\ntrain:\n  stepps: 3\n", ["4: train.stepps is not a setting; did you"]),
        (HEAD + b"name: x\ntrain: {steps: abc}\n", ["3: train.steps is abc; it must be a whole"]),
        (HEAD + b"name: x\ntrain: {lr: 1}\n", ["3: train.lr is now train.optimizer.lr"]),
        (HEAD + b"name: x\nphases: [{train.stepps: 3}]\n", ["3: phases[0].train.stepps is not a"]),
        (HEAD + b"defaults:\n  - override /rope: yarm\nname: x\n", ["3: rope=yarm: there is no"]),
        (HEAD + b"data: {sources: {on: {path: x}}}\n", ["2: the key on is true or false in YAML"]),
        (
            HEAD + b"seed: x\nname: 1e3\nnope: 2\n",
            ["2: seed is x; ", "3: name is 1e3; ", "4: nope is not a setting"],
        ),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(
    tmp_path: Path, content: bytes, starts: list[str]
) -> None:
    expected = [f"recipe/mine.yaml line {start}" for start in starts]
    found = lines(tmp_path, content)
    assert [line[: len(start)] for line, start in zip(found, expected, strict=True)] == expected


@pytest.mark.parametrize("text", ["2026_11_28", "1.0", "true", "on", "null", "~", "0x10", "010"])
def test_text_that_yaml_takes_for_something_else_needs_quotes(tmp_path: Path, text: str) -> None:
    assert not isinstance(yaml.safe_load(f"name: {text}")["name"], str)
    (line,) = lines(tmp_path, HEAD + f"name: {text}\n".encode())
    assert line.endswith(f'write name: "{text}"')
    assert lines(tmp_path, HEAD + f'name: "{text}"\n'.encode()) == []


@pytest.mark.parametrize(
    "content",
    [
        HEAD + b"name: x\r\nseed: 3\r\n",
        b"\n" + HEAD + b"# a comment\nname: x\n",
        HEAD + b"name: x\nmodel: {revision: null}\neval: {}\n",
        HEAD + "name: 'ü, \"x\"'\n".encode(),
        HEAD + b"defaults: [override /rope: pi, _self_]\nname: x\n",
        HEAD + b"name: x\ndata: {length_weights: {<4K: 0.1}}\ntrain: {optimizer: {eps: 1e-9}}\n",
        HEAD + b"name: 2026-11-28\n",
    ],
)
def test_a_good_file_is_taken(tmp_path: Path, content: bytes) -> None:
    assert lines(tmp_path, content) == []


def test_a_file_under_a_shipped_name_is_refused_since_ours_would_be_read(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "demo.yaml").write_bytes(HEAD + b"name: mine\n")
    with pytest.raises(ConfigError, match="names must differ; rename yours"):
        compose(["recipe=demo", config_dir_override(str(tmp_path))])


@pytest.mark.parametrize("word", ["recipe=demoo", "rope=yarm", "mixture=ful"])
def test_a_wrong_group_has_the_nearest_one(word: str) -> None:
    group, _, name = word.partition("=")
    with pytest.raises(ConfigError, match=rf"^{word}: there is no {group} .*did you mean {group}="):
        compose(["recipe=demo", word] if group != "recipe" else [word])
