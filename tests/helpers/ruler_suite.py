"""A suite for RULER's questions: the demo's tokenizer, made-up prose and question files."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.conf.eval import EvalConfig
from ropewalk.conf.eval_ruler import RulerConfig
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import BoundaryTokens
from ropewalk.eval.tasks.task import EvalSuite

NO_MARKS = BoundaryTokens()
DEMO = Path(__file__).parents[2] / "train" / "bases" / "demo"
THEIRS = {
    "needle": "A remark: {kinds} go with names, and with {key} goes {value}.",
    "noise": "It rains. It snows a bit. Then the sun shines.",
    "niah_one": "Keep the one {kind} in mind.\n{context}\nWhich {kind} goes with {query}?",
    "niah_one_prefix": " With {query} goes the {kind}",
    "niah_many": "Keep the {kinds} in mind.\n{context}\nWhich {kinds} go with {query}?",
    "niah_many_prefix": " With {query} go the {kinds}",
    "vt": "Keep track.\n\n{context}\nQuestion: Who has {query}?",
    "vt_prefix": " The {num_v} who have {query} are ",
    "vt_value": "GIVE {name} : {value}",
    "vt_copy": "GIVE {name} : AS {other} ",
    "cwe": "A list of words.\n{context}\nQuestion: The ten most common?",
    "cwe_prefix": " They are:",
    "fwe": "A coded text. {context}\nQuestion: The three most common?",
    "fwe_prefix": " They are:",
    "qa": "Texts:\n\n{context}\n\nQuestion: {query}",
    "qa_prefix": " Answer:",
    "document": "Text {i}:\n{document}",
}
"""A wording beside our own, for mode `ruler` without lm-eval."""


@cache
def demo_tokenizer() -> tokenizers.RunTokenizer:
    return tokenizers.load(str(DEMO))


def suite(
    window: int = 1024,
    length: int = 2048,
    seed: int = 0,
    marks: BoundaryTokens = NO_MARKS,
    **settings: Any,
) -> EvalSuite:
    tokenizer = demo_tokenizer()
    return EvalSuite(
        EvalConfig(ruler=RulerConfig(**settings)),
        window,
        length,
        windows=[],
        fillers=[np.arange(100, 400)],
        encode=tokenizers.text_encoder(tokenizer),
        seed=seed,
        boundary_tokens=marks,
        decode=tokenizers.text_decoder(tokenizer),
        chat=tokenizers.chat_encoder(tokenizer),
    )


def prose(folder: Path, sentences: int = 4000) -> str:
    """A file with sentences of 3 to 12 made-up words; the words are English enough."""
    rng = np.random.Generator(np.random.PCG64(5))
    words = ["the", "of", "rope", "yarn", "ship", "sea", "wind", "old", "lane", "walk", "hold"]
    lines = [
        " ".join(rng.choice(words, rng.integers(3, 13))).capitalize() + "."
        for _ in range(sentences)
    ]
    path = folder / "prose.txt"
    path.write_text("\n".join(lines))
    return str(path)


def squad(folder: Path, articles: int = 6, paragraphs: int = 20) -> str:
    """Each paragraph tells one town's emblem; one question in five has no answer."""
    data = []
    for a in range(articles):
        parts = []
        for p in range(paragraphs):
            town, emblem = f"Town{a}x{p}", f"emblem{a}y{p}"
            text = f"The emblem of {town} is a {emblem}. " + f"Its mill grinds {p} sacks. " * 8
            answers = [{"text": emblem}, {"text": emblem}, {"text": f"a {emblem}"}]
            asked = {"question": f"What is the emblem of {town}?", "answers": answers}
            none = {"question": "Who sleeps?", "answers": [], "is_impossible": True}
            parts.append({"context": text, "qas": [asked, none] if p % 5 == 0 else [asked]})
        data.append({"title": f"Article {a}", "paragraphs": parts})
    path = folder / "squad.json"
    path.write_text(json.dumps({"data": data}))
    return str(path)


def hotpotqa(folder: Path, items: int = 30) -> str:
    """Two paragraphs answer a question: who built a bridge, and where that person was born."""
    made = []
    for i in range(items):
        facts = [
            (f"Bridge{i}", [f"Bridge{i} was built by Person{i}.", " It stands."]),
            (f"Person{i}", [f"Person{i} was born in Place{i}.", " It rained."]),
        ]
        others = [
            (f"Other{i}k{k}", [f"Other{i}k{k} is a hill.", " Sheep graze."]) for k in range(8)
        ]
        question = {
            "question": f"Where was the builder of Bridge{i} born?",
            "answer": f"Place{i}",
            "context": [*others[:3], facts[0], *others[3:6], facts[1], *others[6:]],
            "supporting_facts": [[facts[0][0], 0], [facts[1][0], 0]],
        }
        made.append(question)
    path = folder / "hotpotqa.json"
    path.write_text(json.dumps(made))
    return str(path)
