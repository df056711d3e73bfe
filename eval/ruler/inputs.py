"""What the settings name, read: wording, words, prose and question files."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.conf.eval_ruler import RulerConfig
from ropewalk.eval.ruler import harness, haystacks, question_files, wording, words
from ropewalk.eval.ruler.configurations import Configuration
from ropewalk.eval.ruler.draft import CannotFit
from ropewalk.eval.ruler.haystacks import Prose
from ropewalk.eval.ruler.question_files import QuestionSet
from ropewalk.eval.ruler.wording import Wording
from ropewalk.eval.ruler.words import Words

ESSAYS, ESSAYS_NAME = "PaulGrahamEssays.json", "paul graham essays"
"""The file that RULER's script writes, and what published numbers call it."""
TIMES = 4  # prose that is kept, over the longest length: samples begin at different places


@dataclass(frozen=True)
class Inputs:
    """What the drafts of all configurations are made of."""

    settings: RulerConfig
    wording: Wording
    words: Words
    prose: Prose | None
    questions: dict[str, QuestionSet]

    @property
    def exact(self) -> bool:
        return self.settings.mode == "ruler_exact"

    @property
    def protocol(self) -> str:
        """`ruler` only where prompts are as the published numbers have them."""
        settings = self.settings
        if self.exact or (settings.wording is None and settings.trailing_space):
            return settings.mode
        other = "other wording" if settings.wording is not None else "no trailing space"
        return f"{settings.mode}, {other}"

    def words_of(self, configuration: Configuration) -> tuple[str, str]:
        """Source and hash of the words of keys and lists; empty without such."""
        keys = configuration.family == "niah" and configuration.keys == "words"
        if keys or configuration.family == "cwe":
            return self.words.source, self.words.hash
        return "", ""

    def haystack_of(self, configuration: Configuration) -> tuple[str, str]:
        """Source and hash, or the kind of a haystack that is made up."""
        if configuration.data:
            data = self.questions[configuration.data]
            return data.source, data.hash
        if configuration.haystack == "prose":
            assert self.prose is not None
            return self.prose.source, self.prose.hash
        return configuration.haystack, ""

    def require(self, configuration: Configuration) -> None:
        """Raises: CannotFit, with the setting that is missing."""
        if configuration.data and configuration.data not in self.questions:
            raise CannotFit(
                f"it needs a file of the user; set eval.ruler.{configuration.data}=FILE"
            )


def read(
    settings: RulerConfig,
    configurations: Sequence[Configuration],
    heldout: Callable[[], Iterable[str]],
) -> Inputs:
    """`heldout`: texts for prose where no setting names any. Raises: ConfigError, DataError."""
    prose = None
    if any(configuration.haystack == "prose" for configuration in configurations):
        prose = _prose(settings, heldout)
    data_sets = {configuration.data for configuration in configurations if configuration.data}
    files = {key: getattr(settings, key) for key in sorted(data_sets)}
    questions = {key: question_files.read(key, path) for key, path in files.items() if path}
    return Inputs(settings, _wording(settings), words.find(settings.words), prose, questions)


def identity(settings: RulerConfig) -> dict[str, str]:
    """What the settings' paths and the installed packages hold, for a fingerprint: a file that
    changes asks other questions. Raises: ConfigError."""
    word_list = words.find(settings.words)
    texts = {"wording": _wording(settings).id, "words": word_list.hash}
    for key in ("squad", "hotpotqa"):
        if path := getattr(settings, key):
            texts[key] = question_files.read(key, path).hash
    if settings.haystack is not None:
        texts["haystack"] = _prose(settings, list).hash
    return texts


def _wording(settings: RulerConfig) -> Wording:
    if settings.wording is not None:
        return wording.of_file(settings.wording)
    if settings.mode == "ruler":
        return harness.wording(settings.trailing_space)
    return wording.OWN


def _prose(settings: RulerConfig, heldout: Callable[[], Iterable[str]]) -> Prose:
    if settings.haystack is None:
        prose = Prose("held-out text", haystacks.sentences(heldout()))
    else:
        path = Path(settings.haystack).expanduser()
        prose = Prose(_name(path), haystacks.sentences(_texts(path)))
    if not prose.sentences:
        raise DataError(
            f"eval.ruler.haystack is {settings.haystack}; a haystack must have text, and "
            f"{prose.source} has none; name a file or folder of .txt files"
        )
    return prose


def _texts(path: Path) -> list[str]:
    """Of a text file, of the .txt files below a folder by their names, or of a JSON file with
    `text`, as RULER has its essays. Raises: ConfigError."""
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    try:
        texts = [file.read_text(encoding="utf-8") for file in files]
        return [str(json.loads(text)["text"]) for text in texts] if _is_json(path) else texts
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(
            f"eval.ruler.haystack is {path}; it must be a readable text file, or a folder of .txt "
            f"files; {error}; correct it"
        ) from error


def _is_json(path: Path) -> bool:
    return path.suffix == ".json"


def _name(path: Path) -> str:
    return ESSAYS_NAME if path.name == ESSAYS else path.name


def heldout_texts(
    fillers: Sequence[np.ndarray], decode: Callable[[Iterable[int]], str], longest: int
) -> list[str]:
    """Text of each source's first held-out tokens, `TIMES` the longest length in all."""
    share = -(-TIMES * longest // max(1, len(fillers)))
    return [decode(tokens[:share].tolist()) for tokens in fillers]
