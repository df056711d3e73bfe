"""Long texts cut into parts whose token ids join to exactly those of the full text.

A part is encoded behind some characters of context, whose tokens are dropped: so a prefix that the
tokenizer adds to each text falls into the context. A cut is one of two kinds.

- Between words: a letter, a space or newline, a letter. The pre-tokenizer splits there, or no token
  holds both sides; which token precedes it does not matter. Each is tried in a window of the text.
- Elsewhere, as in a text without spaces: at a border between two tokens of the text so far. It
  needs the tokens before it, so such parts are encoded one after another. In the window after the
  cut the tokens must be in step again. For a BPE that is a proof (`Locator.merges_pairs`); for
  other models the border must be one of words. A normalizer sorts the marks of a letter, however
  many they are, so none is cut between them.

Where neither is found the part grows, up to LIMIT.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from unicodedata import combining

import numpy as np

from ropewalk.data.sources.long_text import Text
from ropewalk.data.tokens.locate import Located, Locator

PART = 1 << 18  # characters, at least; a text shorter than two parts is not cut
LIMIT = 1 << 22  # characters of a part: its tokens take some 200 bytes each while it is encoded
CONTEXT = 256  # characters on each side of a cut
IN_STEP = range(2, 9)  # tokens before a cut that must be the same with less of the text before
PHASES = 32  # contexts that are tried for a cut: a run of one letter is in step in one of them
TRIES = 32  # cuts of a kind that are tried for a part
NO_CUT = f"more than {LIMIT} characters that the tokenizer cannot split"
_BETWEEN_WORDS = re.compile(r"(?<=[^\W\d_])(?: (?=[^\W\d_])|\n(?=[^\W\d_]))")


@dataclass(frozen=True)
class Cut:
    """Where a part begins, and the context that is encoded before it."""

    position: int = 0  # characters
    context: int = 0  # the first character of the context
    context_ids: tuple[int, ...] = ()  # its tokens, which are dropped
    ids_before: np.ndarray | None = None  # tokens of the part that ends here, where known


class NoCutError(Exception):
    """A text has a part of more than LIMIT characters without a cut."""


def find_cuts(text: Text, locate: Locator) -> list[Cut]:
    """The beginnings of the parts of a text after the first, in order. Raises: NoCutError."""
    return list(_cuts(text, locate))


def _cuts(text: Text, locate: Locator) -> Iterator[Cut]:
    last, size = Cut(), PART
    while len(text) - last.position >= 2 * size:
        cut = _between_words(text, last.position + size, size, locate)
        cut = cut or _between_tokens(text, last, size, locate)
        if cut is not None:
            yield cut
            last, size = cut, PART
        elif size >= LIMIT:
            raise NoCutError
        else:
            size *= 2


def _between_words(text: Text, start: int, size: int, locate: Locator) -> Cut | None:
    """The first cut between words of characters `[start, start + size)`."""
    for number, match in enumerate(_BETWEEN_WORDS.finditer(text[start : start + size])):
        position = start + (match.start() if match[0] == " " else match.end())
        if cut := _checked(text, position, locate):
            return cut
        if number == TRIES:
            break
    return None


def _checked(text: Text, position: int, locate: Locator) -> Cut | None:
    """The cut if its tokens on the left are the same with and without the text on the right."""
    context = max(position - CONTEXT, 0)
    window = locate(text[context : position + CONTEXT])
    count = window.before(position - context)
    if (
        not count
        or count == len(window.ids)
        or not (window.ends_word(count) or locate.keeps_words_apart)
    ):
        return None
    ids = window.ids[:count]
    same = np.array_equal(ids, locate(text[context:position]).ids)
    return Cut(position, context, tuple(ids.tolist())) if same else None


def _between_tokens(text: Text, last: Cut, size: int, locate: Locator) -> Cut | None:
    """A cut between two of the tokens after the cut `last`, near the end of `size` characters."""
    tokens = locate(text[last.context : last.position + size])
    dropped = len(last.context_ids)
    if tuple(tokens.ids[:dropped].tolist()) != last.context_ids:
        return None
    usable = np.flatnonzero(tokens.stop <= last.position - last.context + size - CONTEXT)[:-1]
    counts = [n + 1 for n in usable.tolist() if locate.merges_pairs or tokens.ends_word(n + 1)]
    for count in reversed(counts[-TRIES:]):
        first = int(tokens.start[count])  # not the end before: a normalizer joins characters to it
        position = last.context + first
        is_border = tokens.before(first) == count > dropped + IN_STEP[-1]
        if is_border and not (locate.normalizes and combining(text[position : position + 1])):
            for context in range(position - CONTEXT, position - CONTEXT - PHASES, -1):
                window = locate(text[max(context, 0) : position + CONTEXT])
                ids = _in_step(tokens, count, window, first - (position - max(context, 0)))
                if ids is not None:
                    return Cut(position, max(context, 0), ids, tokens.ids[dropped:count])
    return None


def _in_step(tokens: Located, count: int, window: Located, first: int) -> tuple[int, ...] | None:
    """The ids of the window's tokens before the border after `count` tokens; None: out of step.

    In step are the same ids over the same characters, in the same words. The window begins at
    character `first` of those that `tokens` counts.
    """
    in_window = window.before(int(tokens.start[count]) - first)
    if in_window is None or not IN_STEP[0] <= in_window < len(window.ids):
        return None
    # fewer where tokens are long: some vocabularies have one of 128 spaces
    compared = max(IN_STEP[0], min(IN_STEP[-1], in_window - 1))
    ours = slice(count - compared, count + 1)
    theirs = slice(in_window - compared, in_window + 1)
    same = (
        np.array_equal(tokens.ids[ours][:-1], window.ids[theirs][:-1])
        and np.array_equal(tokens.start[ours][:-1], window.start[theirs][:-1] + first)
        and np.array_equal(np.diff(tokens.word[ours]) == 0, np.diff(window.word[theirs]) == 0)
    )
    return tuple(window.ids[:in_window].tolist()) if same else None
