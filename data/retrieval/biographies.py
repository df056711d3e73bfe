"""Short invented biographies, one attribute asked: a synthetic multi-document question.

Every other biography is a distractor of the same kind, and many share a first or a last name with
the person who is asked about. The people are invented, so what a model answers without the
documents is a guess among the values of an attribute.
"""

from dataclasses import dataclass, replace
from math import isqrt

import numpy as np

from ropewalk.conf.errors import DataError
from ropewalk.data.retrieval.haystack import Encode, Haystack
from ropewalk.data.retrieval.records import Arrangement, Form, Record, fill, lay_out

FIRST_NAMES = (
    *("Ada", "Bruno", "Carla", "Dario", "Elena", "Felix", "Greta", "Hugo", "Irene", "Jonas"),
    *("Karin", "Lukas", "Maria", "Nils", "Olga", "Pavel", "Rosa", "Stefan", "Tessa", "Viktor"),
    *("Wanda", "Xavier", "Yara", "Zeno", "Anton", "Berta", "Clemens", "Diana", "Emil", "Flora"),
)
LAST_NAMES = (
    *("Adler", "Brandt", "Castel", "Dorn", "Engel", "Falk", "Garber", "Hauser", "Imhof", "Jansen"),
    *("Keller", "Lorenz", "Mertens", "Novak", "Orlov", "Petri", "Quist", "Reuter", "Sander"),
    *("Thaler", "Ullman", "Vogel", "Weber", "Zeller", "Arnold", "Becker", "Conrad", "Decker"),
    *("Ebert", "Fuchs", "Gruber", "Hartmann", "Ibsen", "Jung", "Kramer", "Lang", "Maurer"),
)
VALUES = {
    "city": "Athens Berlin Cairo Dublin Florence Geneva Hamburg Istanbul Jakarta Kyoto Lisbon "
    "Madrid Nairobi Oslo Paris Quito Rome Seville Tokyo Vienna Warsaw Zagreb Boston Chicago",
    "subject": "algebra botany chemistry drama economics finance geology history journalism law "
    "medicine music painting physics politics sculpture statistics theology zoology astronomy",
    "profession": "baker carpenter dentist farmer gardener hairdresser jeweller librarian "
    "mechanic nurse pilot plumber sailor tailor teacher waiter weaver butcher driver printer",
    "instrument": "accordion banjo cello clarinet drum flute guitar harp horn lute oboe organ "
    "piano saxophone trombone trumpet tuba viola violin zither",
}
CHOICES = {attribute: tuple(text.split()) for attribute, text in VALUES.items()}
BIOGRAPHY = (
    "{name} was born in {city}, studied {subject} and works as a {profession}. "
    "{name} plays the {instrument}."
)
QUESTIONS = {
    "city": "Where was {name} born?\nAnswer: {name} was born in",
    "subject": "What did {name} study?\nAnswer: {name} studied",
    "profession": "What does {name} work as?\nAnswer: {name} works as a",
    "instrument": "Which instrument does {name} play?\nAnswer: {name} plays the",
}
FORM = Form(
    task="multi_document_qa",
    opening="Documents about several people:\n",
    between="\n",
    closing="\n\nQuestions about them:\n",
    after_answer=".\n",
    way_out="raise the length, or set fewer eval.multi_document_qa.shots",
)
WITHOUT_DOCUMENTS = replace(FORM, opening="", closing="Questions about several people:\n")


@dataclass(frozen=True, eq=False)
class Documents:
    """Questions over many documents, and the two bounds of their score."""

    haystack: Haystack
    closed_book: Haystack
    """The same questions without the documents."""
    oracle: tuple[Haystack, ...]
    """Each question over its own document and those of the shots alone."""


def documents(
    encode: Encode, length: int, rng: np.random.Generator, *, positions: int = 10, shots: int = 2
) -> Documents:
    """Biographies that fill `length` tokens, and a question at each of `positions` depths.

    Raises: TooShort when the shots and two biographies do not fit; DataError when there are fewer
    names than biographies, or the tokenizer joins question and answer.
    """
    records = _random_people(encode, length, rng)
    own, haystack = fill(encode, length, rng, records, FORM, positions=positions, shots=shots)
    closed_book = lay_out(encode, replace(own, placed=()), WITHOUT_DOCUMENTS)
    oracle = []
    for record, depth in own.asked:
        few = [*own.shots, record]
        placed = [few[place] for place in rng.permutation(len(few))]
        oracle.append(lay_out(encode, Arrangement(placed, own.shots, [(record, depth)]), FORM))
    return Documents(haystack, closed_book, tuple(oracle))


def chance() -> float:
    """Of a guess among the values of the attribute, which are drawn with equal probability."""
    return sum(1 / len(values) for values in CHOICES.values()) / len(CHOICES)


def _random_people(encode: Encode, length: int, rng: np.random.Generator) -> list[Record]:
    """More biographies than `length` tokens hold, each of another name."""
    sample = _person("Ada A. Adler", rng).text
    count = 16 + 3 * length // (2 * len(encode(sample)))
    return [_person(name, rng) for name in _random_names(count, rng)]


def _random_names(count: int, rng: np.random.Generator) -> list[str]:
    """Different names, of few first and last ones: most people share each with several others."""
    most = len(FIRST_NAMES) * len(LAST_NAMES) * 26
    if count > most:
        raise DataError(
            f"multi_document_qa length needs {count} biographies; there are {most} names; lower "
            "eval.multi_document_qa.lengths"
        )
    some = isqrt(count - 1) + 1
    firsts, lasts = FIRST_NAMES[:some], LAST_NAMES[:some]
    combinations = len(firsts) * len(lasts) * 26
    names = []
    for number in rng.choice(combinations, count, replace=False):
        rest, first = divmod(int(number), len(firsts))
        letter, last = divmod(rest, len(lasts))
        names.append(f"{firsts[first]} {chr(ord('A') + letter)}. {lasts[last]}")
    return names


def _person(name: str, rng: np.random.Generator) -> Record:
    values = {attribute: str(rng.choice(choices)) for attribute, choices in CHOICES.items()}
    asked = str(rng.choice([*CHOICES]))
    question = f"Question: {QUESTIONS[asked].format(name=name)}"
    return Record(BIOGRAPHY.format(name=name, **values), name, question, f" {values[asked]}")
