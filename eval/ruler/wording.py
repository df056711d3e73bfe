"""The texts of the prompts: our own, or those of a file. What is filled in stands in braces."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from string import Formatter

import yaml

from ropewalk.conf.errors import ConfigError

FIELDS = {
    "needle": {"key", "value"},
    "noise": set[str](),
    "niah_one": {"context", "query"},
    "niah_one_prefix": {"query"},
    "niah_many": {"context", "query"},
    "niah_many_prefix": {"query"},
    "vt": {"context", "query"},
    "vt_prefix": {"query"},
    "vt_value": {"name", "value"},
    "vt_copy": {"name", "other"},
    "cwe": {"context"},
    "cwe_prefix": set[str](),
    "fwe": {"context"},
    "fwe_prefix": set[str](),
    "qa": {"context", "query"},
    "qa_prefix": set[str](),
    "document": {"document"},
}
"""What each text must be filled with."""
OPTIONAL = {"kind", "kinds", "num_v", "i"}
"""Kind of a value in the singular and plural; variables of a chain; a document's number."""


@dataclass(frozen=True)
class Wording:
    """The texts of all configurations. A prefix is the beginning of the answer, with its space."""

    source: str
    """Where the texts are from, such as `ropewalk 1`."""
    needle: str
    noise: str
    """A line of the noise: sentences, each with its full stop."""
    niah_one: str
    niah_one_prefix: str
    niah_many: str
    niah_many_prefix: str
    vt: str
    vt_prefix: str
    vt_value: str
    vt_copy: str
    cwe: str
    cwe_prefix: str
    fwe: str
    fwe_prefix: str
    qa: str
    qa_prefix: str
    document: str

    @property
    def id(self) -> str:
        """Its source and a hash of its texts."""
        texts = "\0".join(getattr(self, name) for name in FIELDS)
        return f"{self.source}#{hashlib.sha256(texts.encode()).hexdigest()[:8]}"


OWN = Wording(
    source="ropewalk 1",
    needle="Entry: the code {kind} of {key} reads {value}.",
    noise="The tide has turned. A gull calls from the pier. The nets are dry. Rain may follow. "
    "Nobody hurries.",
    niah_one="Between the lines of a long text stands an entry with a code {kind}. Read it all; "
    "one question follows.\n\n{context}\n\nQuestion: What is the code {kind} of {query}?",
    niah_one_prefix=" Answer: The code {kind} of {query} reads",
    niah_many="Between the lines of a long text stand entries with code {kinds}. Read it all; one "
    "question follows.\n\n{context}\n\nQuestion: What are all code {kinds} of {query}?",
    niah_many_prefix=" Answer: The code {kinds} of {query} read",
    vt="Between the lines of a long text, values are given to registers, or copied from one "
    "register to the next. Follow the copies.\n\n{context}\n\nQuestion: Which registers hold "
    "{query} in the end?",
    vt_prefix=" Answer: The {num_v} registers that hold {query} are",
    vt_value="Set {name} to {value}.",
    vt_copy="Set {name} to {other}.",
    cwe="Words are listed with their numbers. A few words recur far more than all others.\n\n"
    "{context}\n\nQuestion: Name the 10 words that recur the most.",
    cwe_prefix=" Answer: The 10 words are",
    fwe="The text below consists of invented words, with dots between them that mean nothing. "
    "Count how often each word is used.\n\n{context}\n\nQuestion: Name the three words that are "
    "used the most, dots aside.",
    fwe_prefix=" Answer: The three words are",
    qa="Here are numbered texts. Some of them hold the answer to a question.\n\n{context}\n\n"
    "Reply with the answer only, in as few words as possible.\n\nQuestion: {query}",
    qa_prefix=" Answer:",
    document="Text {i}\n{document}",
)


def wording_of(source: str, texts: Mapping[str, object], where: str) -> Wording:
    """A wording of texts by their names, checked. Raises: ConfigError; `where` names them."""
    for name, needed in FIELDS.items():
        text = texts.get(name)
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(
                f"{where} has no text {name}; a wording has all of {_names()}; add it"
            )
        try:
            placeholders = {
                field for _, field, _, _ in Formatter().parse(text) if field is not None
            }
        except ValueError as error:
            raise ConfigError(f"{where}: {name}: {error}; write a brace as {{{{ or }}}}") from error
        if not needed <= placeholders <= needed | OPTIONAL:
            raise ConfigError(
                f"{where}: {name} is filled with {sorted(placeholders)}; it must hold "
                f"{sorted(needed) or 'nothing'} in braces, and may hold {sorted(OPTIONAL)}; "
                "correct it"
            )
    if unknown := texts.keys() - FIELDS.keys():
        raise ConfigError(f"{where} has {sorted(unknown)}; a wording has {_names()}; leave it out")
    return Wording(source, **{name: str(texts[name]) for name in FIELDS})


def of_file(path: str) -> Wording:
    """The wording of a YAML file. Raises: ConfigError."""
    try:
        content = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"eval.ruler.wording is {path}; it must be a readable YAML file; {reason}; correct it"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"eval.ruler.wording is {path}; it must map {_names()} to texts; correct it"
        )
    return wording_of(Path(path).name, content, f"eval.ruler.wording {path}")


def _names() -> str:
    return ", ".join(FIELDS)


assert {field.name for field in fields(Wording)} == {"source", *FIELDS}
