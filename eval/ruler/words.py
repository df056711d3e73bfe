"""Words for keys and lists: those of the package wonderwords, of a file, or pronounceable ones."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np

from ropewalk.conf.errors import ConfigError

PACKAGE = "wonderwords"
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
SYLLABLES = len(CONSONANTS) * len(VOWELS)
STRIDE = 15_013
"""Prime to the number of pronounceable words, so that its multiples pass each of them once."""


@dataclass(frozen=True)
class Words:
    """Lists of words without doubles, in a fixed order."""

    source: str
    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]
    verbs: tuple[str, ...] = ()

    @cached_property
    def hash(self) -> str:
        text = "\0\0".join("\0".join(part) for part in (self.adjectives, self.nouns, self.verbs))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def all(self) -> tuple[str, ...]:
        """Every word once, sorted."""
        return tuple(sorted({*self.adjectives, *self.nouns, *self.verbs}))

    def pair(self, rng: np.random.Generator) -> str:
        """A key: adjective and noun."""
        numbers = rng.integers(0, (len(self.adjectives), len(self.nouns)))
        return f"{self.adjectives[numbers[0]]}-{self.nouns[numbers[1]]}"

    @cached_property
    def more(self) -> tuple[str, ...]:
        """Pronounceable words that are in none of the lists."""
        known = {*self.all}
        return tuple(word for word in pronounceable() if word not in known)

    @property
    def available(self) -> int:
        return len(self.all) + len(self.more)

    def distinct(self, rng: np.random.Generator, count: int) -> list[str]:
        """`count` different words of the lists; behind them, where they are too few, pronounceable
        ones. The same stream gives more words behind the same ones."""
        chosen = [self.all[number] for number in rng.permutation(len(self.all))[:count]]
        return [*chosen, *self.more[: count - len(chosen)]]


def pronounceable() -> Iterator[str]:
    """Words of two open syllables and a consonant, each once: `tavol`, `munir`."""
    total = SYLLABLES**2 * len(CONSONANTS)
    for number in range(total):
        rest, last = divmod((number + 1) * STRIDE % total, len(CONSONANTS))
        first, second = divmod(rest, SYLLABLES)
        yield _syllable(first) + _syllable(second) + CONSONANTS[last]


def _syllable(number: int) -> str:
    consonant, vowel = divmod(number, len(VOWELS))
    return CONSONANTS[consonant] + VOWELS[vowel]


def find(path: str | None) -> Words:
    """The words of a file, of the installed package, or pronounceable ones. Raises: ConfigError."""
    if path is not None:
        return of_file(path)
    return of_package() or generated()


def generated() -> Words:
    """Pronounceable words, as many as wonderwords has."""
    words = [*islice(pronounceable(), 8192)]
    return Words("pronounceable words 1", tuple(words[:1024]), tuple(words[1024:]))


def of_package() -> Words | None:
    """The raw lists of wonderwords, which RULER reads too; None where it is not installed."""
    try:
        spec, number = find_spec(PACKAGE), version(PACKAGE)
    except (ImportError, PackageNotFoundError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "assets"
    lists = [
        _lines((folder / f"{kind}list.txt").read_text(encoding="utf-8").splitlines())
        for kind in ("adjective", "noun", "verb")
    ]
    return Words(f"{PACKAGE} {number}", *lists)


def of_file(path: str) -> Words:
    """One word a line; each is a noun and an adjective. Raises: ConfigError."""
    try:
        words = _lines(Path(path).expanduser().read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"eval.ruler.words is {path}; it must be a readable text file; {error}; correct it"
        ) from error
    if len(words) < 100:
        raise ConfigError(
            f"eval.ruler.words is {path}; it must have 100 different words, one a line, and has "
            f"{len(words)}; add some, or unset it"
        )
    return Words(Path(path).name, words, words)


def _lines(lines: Sequence[str]) -> tuple[str, ...]:
    """Without empty lines and doubles, in the file's order."""
    return tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
