"""Refusals of a named model name its own settings, and leave the names of files alone."""

import pytest

from ropewalk.eval.measure.named import in_its_words


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("model.path is x; set model.revision", "A.path is x; set A.revision"),
        ("model.path: model.safetensors is cut", "A.path: model.safetensors is cut"),
        ("model.embed_tokens.weight is nan", "model.embed_tokens.weight is nan"),
        ("model.trust_remote_code=true", "A.trust_remote_code=true"),
        ("eval.model.path", "eval.model.path"),
    ],
)  # fmt: skip
def test_settings_are_renamed_and_files_are_not(line: str, expected: str) -> None:
    assert in_its_words("a", [line]) == [expected.replace("A.", "eval.models.a.")]
