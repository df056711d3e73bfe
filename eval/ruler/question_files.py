"""SQuAD 2.0 and HotpotQA (distractor setting), from JSON files of the user."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.conf.errors import ConfigError


@dataclass(frozen=True)
class Question:
    text: str
    answers: tuple[str, ...]
    gold: tuple[int, ...]
    """Numbers of the documents that hold the answer."""
    near: tuple[int, ...]
    """Documents that stand beside these first: of the same article, or chosen by the data set."""


@dataclass(frozen=True)
class QuestionSet:
    """Questions in the file's order, and all documents, sorted, without doubles."""

    source: str
    """squad or hotpotqa."""
    hash: str
    questions: tuple[Question, ...]
    documents: tuple[str, ...]


def read(key: str, path: str) -> QuestionSet:
    """`key`: squad or hotpotqa. Raises: ConfigError."""
    try:
        content = Path(path).expanduser().read_bytes()
        questions, documents = READERS[key](json.loads(content))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(
            f"eval.ruler.{key} is {path}; it must be {FORMS[key]}; "
            f"{type(error).__name__}: {error}; correct it, or leave the configuration out"
        ) from error
    if not questions:
        raise ConfigError(
            f"eval.ruler.{key} is {path}; it must be {FORMS[key]}, and has no question with an "
            "answer; correct it, or leave the configuration out"
        )
    digest = hashlib.sha256(content).hexdigest()[:16]
    return QuestionSet(key, digest, tuple(questions), tuple(documents))


def _squad(content: Any) -> tuple[list[Question], list[str]]:
    articles = [article["paragraphs"] for article in content["data"]]
    documents = sorted({p["context"] for paragraphs in articles for p in paragraphs})
    number = {document: n for n, document in enumerate(documents)}
    questions = []
    for paragraphs in articles:
        article = [number[p["context"]] for p in paragraphs]
        for paragraph in paragraphs:
            gold = number[paragraph["context"]]
            near = tuple(n for n in article if n != gold)
            for qa in paragraph["qas"]:
                answers = tuple(dict.fromkeys(answer["text"] for answer in qa["answers"]))
                if answers and not qa.get("is_impossible", False):
                    questions.append(Question(qa["question"], answers, (gold,), near))
    return questions, documents


def _hotpotqa(content: Any) -> tuple[list[Question], list[str]]:
    """The paragraphs that its supporting facts name are gold; its other ones stand near."""
    paragraphs = [
        [(title, f"{title}\n{''.join(sentences)}") for title, sentences in item["context"]]
        for item in content
    ]
    documents = sorted({text for part in paragraphs for _, text in part})
    number = {document: n for n, document in enumerate(documents)}
    questions = []
    for item, part in zip(content, paragraphs, strict=True):
        titles = {title for title, _ in item["supporting_facts"]}
        gold = tuple(number[text] for title, text in part if title in titles)
        near = tuple(number[text] for title, text in part if title not in titles)
        if gold and item["answer"]:
            questions.append(Question(item["question"], (item["answer"],), gold, near))
    return questions, documents


READERS: dict[str, Callable[[Any], tuple[list[Question], list[str]]]] = {
    "squad": _squad,
    "hotpotqa": _hotpotqa,
}
FORMS = {
    "squad": "a JSON file of SQuAD 2.0 (data, paragraphs, qas)",
    "hotpotqa": "a JSON file of HotpotQA (a list with question, answer, context and "
    "supporting_facts)",
}
