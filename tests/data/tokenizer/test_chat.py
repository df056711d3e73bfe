"""A message in chat form has the ids that transformers gives it; replies decode to their text."""

import json
from pathlib import Path

import pytest

from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.data import tokenizer as tokenizers

DEMO = Path(__file__).parents[3] / "train" / "bases" / "demo"
TEMPLATE = (
    "{{ '<|endoftext|>' }}You are brief.\n{% for m in messages %}[{{ m.role }}] {{ m.content }}\n"
    "{% endfor %}{% if add_generation_prompt %}[reply]{% endif %}"
)
MESSAGE = "Which word?\nIt's 1234567; naïve café ☃.\n\n  1. one 2. two"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for file in DEMO.glob("tokenizer*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def with_template(folder: Path, template: str) -> Path:
    (folder / "chat_template.jinja").write_text(template)
    return folder


def test_the_ids_are_those_of_transformers(folder: Path) -> None:
    from transformers import AutoTokenizer

    own = tokenizers.chat_encoder(tokenizers.load(str(with_template(folder, TEMPLATE))))
    peer = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": MESSAGE}]
    text = peer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    expected = peer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert own(MESSAGE, "").tolist() == list(expected)
    assert own(MESSAGE, " The word").tolist() == peer(text + " The word")["input_ids"]
    assert own(MESSAGE, "")[0] == peer.convert_tokens_to_ids("<|endoftext|>")


def test_a_special_token_in_a_message_is_refused(folder: Path) -> None:
    encode = tokenizers.chat_encoder(tokenizers.load(str(with_template(folder, TEMPLATE))))
    with pytest.raises(DataError, match="special token of the tokenizer in its text"):
        encode("one <|endoftext|> two", "")


def test_chat_form_without_a_template_is_refused(folder: Path) -> None:
    encode = tokenizers.chat_encoder(tokenizers.load(str(folder)))
    with pytest.raises(ConfigError, match="and it has none; set eval.ruler.form=base"):
        encode(MESSAGE, "")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('no user speaks here') }}", "no user speaks here"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "changes its text"),
    ],
)
def test_a_template_that_loses_the_message_is_refused(
    folder: Path, template: str, reason: str
) -> None:
    encode = tokenizers.chat_encoder(tokenizers.load(str(with_template(folder, template))))
    with pytest.raises(ConfigError, match=reason):
        encode(MESSAGE, "")


def test_decoding_gives_the_text_without_special_tokens(folder: Path) -> None:
    tokenizer = tokenizers.load(str(folder))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    end = tokenizer.backend.token_to_id(config["eos_token"])
    ids = tokenizers.text_encoder(tokenizer)(MESSAGE).tolist()
    assert end is not None
    assert tokenizers.text_decoder(tokenizer)([*ids, end]) == MESSAGE
