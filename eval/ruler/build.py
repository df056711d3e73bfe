"""The draft of a configuration at a length, with RULER's solved examples or those of a setting."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from ropewalk.eval.ruler import fitting
from ropewalk.eval.ruler.configurations import Configuration
from ropewalk.eval.ruler.documents import Documents
from ropewalk.eval.ruler.draft import Body, CannotFit, Draft, Draw
from ropewalk.eval.ruler.frequency import SHORT, CommonWords, FrequentWords
from ropewalk.eval.ruler.inputs import Inputs
from ropewalk.eval.ruler.niah import Needles
from ropewalk.eval.ruler.tracking import Chain

Count = Callable[[str], int]
"""Tokens of a text."""
REPEATS, REPEATS_SHORT = (30, 3), (6, 1)  # of a common and of another word, in a list
EXAMPLE_REPEATS, EXAMPLE_REPEATS_SHORT = (10, 3), (3, 1)
EXAMPLE_WORDS, EXAMPLE_WORDS_SHORT = 40, 20
CHAIN_TOKENS = 500  # of RULER's example of vt
CHAIN_STEP = 5  # lines, by which it is fitted
CHAIN_SENTENCES = 20  # of ours
EXAMPLE_SIZES = {"niah": 12, "fwe": 80, "qa": 2}
EXAMPLE_WORDS_OF_PROSE = 60
EXAMPLE_VOCABULARY = 12
NUMBERS = 1 << 20  # of the samples that examples are drawn as: beyond those that are asked


@dataclass(frozen=True)
class Example:
    """A solved question that stands before the one that is asked."""

    body: Body
    answer: str
    border: str
    """Between it and what follows."""

    @property
    def text(self) -> str:
        return f"{self.body.message}{self.body.prefix} {self.answer}{self.border}"


class WithExamples:
    """A draft with solved examples before its message."""

    def __init__(self, draft: Draft, examples: list[Example]) -> None:
        self.draft, self.before = draft, "".join(example.text for example in examples)
        self.references, self.answer = draft.references, draft.answer
        self.least, self.most = draft.least, draft.most

    def body(self, size: int) -> Body:
        body = self.draft.body(size)
        return replace(body, message=self.before + body.message)


def draft(configuration: Configuration, inputs: Inputs, draw: Draw, count: Count) -> Draft:
    """Raises: CannotFit where the configuration cannot be asked at all at that length."""
    inputs.require(configuration)
    asked = _bare(configuration, inputs, draw)
    numbers = range(shots(configuration, inputs.settings.shots))
    examples = [_example(configuration, inputs, draw, n, count) for n in numbers]
    return WithExamples(asked, examples) if examples else asked


def shots(configuration: Configuration, set_to: int | None) -> int:
    """Solved examples before a question."""
    own = int(configuration.family in ("vt", "cwe"))
    return own if set_to is None else set_to


def _bare(configuration: Configuration, inputs: Inputs, draw: Draw) -> Draft:
    if configuration.family == "niah":
        prose = inputs.prose if configuration.haystack == "prose" else None
        return Needles(configuration, inputs.wording, inputs.words, prose, draw)
    if configuration.family == "vt":
        return Chain(inputs.wording, draw)
    if configuration.family == "cwe":
        repeats = REPEATS if draw.length >= SHORT else REPEATS_SHORT
        return CommonWords(inputs.wording, inputs.words, draw, repeats)
    if configuration.family == "fwe":
        return FrequentWords(inputs.wording, draw, (draw.length - configuration.budget) // 50)
    return Documents(inputs.wording, inputs.questions[configuration.data], draw)


def _example(
    configuration: Configuration, inputs: Inputs, draw: Draw, number: int, count: Count
) -> Example:
    """Its own draw, among those that no sample has."""
    own = replace(draw, number=NUMBERS + 8 * draw.number + number)
    if configuration.family == "vt":
        return _chain(inputs, draw, own, count)
    if configuration.family == "cwe":
        return _list(inputs, own)
    if configuration.family == "fwe":
        asked: Draft = FrequentWords(inputs.wording, own, EXAMPLE_VOCABULARY)
    else:
        asked = _bare(configuration, inputs, own)
    size = EXAMPLE_SIZES[configuration.family]
    if configuration.haystack == "prose":
        size = EXAMPLE_WORDS_OF_PROSE
    return Example(asked.body(max(size, asked.least)), asked.answer, "\n\n")


def _chain(inputs: Inputs, draw: Draw, own: Draw, count: Count) -> Example:
    """RULER's is fitted once to 500 tokens, and has new names and a new value in each sample."""
    if inputs.exact:
        chain = Chain(inputs.wording, own, letters=3)
        return Example(chain.body(CHAIN_SENTENCES), chain.answer, "\n\n")
    first = replace(draw, number=NUMBERS)
    fitted = Chain(inputs.wording, first, letters=3)

    def tokens(lines: int) -> int:
        return count(Example(fitted.body(lines), fitted.answer, "").text)

    least = -(-fitted.least // CHAIN_STEP) * CHAIN_STEP
    try:
        size = fitting.in_steps(tokens, CHAIN_TOKENS, least, fitted.most, CHAIN_STEP)
    except CannotFit:
        size = least  # RULER's too, where a tokenizer needs more for it
    chain = Chain(inputs.wording, own, letters=3, places=first)
    return Example(chain.body(size), chain.answer, "\n\n")


def _list(inputs: Inputs, own: Draw) -> Example:
    short = own.length < SHORT
    repeats = EXAMPLE_REPEATS_SHORT if short else EXAMPLE_REPEATS
    words = EXAMPLE_WORDS_SHORT if short else EXAMPLE_WORDS
    chosen = CommonWords(inputs.wording, inputs.words, own, repeats)
    return Example(chosen.body(chosen.size(words)), chosen.answer, "\n")


def step(configuration: Configuration, length: int) -> int:
    """Units by which RULER changes a size."""
    if configuration.haystack == "prose":
        return 500
    if configuration.family == "niah":
        return 25 if length >= SHORT else 5
    return length // 32 if configuration.family == "fwe" else 10
