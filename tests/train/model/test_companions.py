"""The files beside a base that go with the trained model; transformers is the oracle of each."""

from pathlib import Path

import pytest

from ropewalk.train.model.companions import generation_problems, take_licences


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{,", "is no JSON"),
        ("[]", "is a JSON list"),
        ('{"max_length": "x"}', "max_length 'x'"),
        ('{"max_length": 0}', "max_length 0"),
        ('{"max_length": true}', "max_length True"),
        ("\ufeff{}", "is no JSON"),
    ],
)
def test_settings_that_transformers_would_replace_are_refused(
    content: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "generation_config.json").write_text(content, encoding="utf-8")
    (line,) = generation_problems(tmp_path, "base")
    assert expected in line and line.startswith("model.path is base; its generation_config.json")


@pytest.mark.parametrize("content", [None, "{}", '{"max_length": null, "temperature": 0.6}'])
def test_other_settings_are_kept(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "generation_config.json").write_text(content)
    assert generation_problems(tmp_path, "base") == []


def test_licences_go_with_the_model(tmp_path: Path) -> None:
    base, model = tmp_path / "base", tmp_path / "model"
    base.mkdir()
    model.mkdir()
    for name in ("LICENSE", "LICENSE.txt", "NOTICE", "USE_POLICY.md", "README.md"):
        (base / name).write_text(name)
    names = ["LICENSE", "LICENSE.txt", "NOTICE", "USE_POLICY.md"]
    assert take_licences(base, model) == names
    assert {p.name: p.read_text() for p in model.iterdir()} == {name: name for name in names}
