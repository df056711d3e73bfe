"""Synthetic retrieval on token ids. Pure.

The data stage makes training documents with it, the training and the eval stage questions.

pass_key.py    a pass key hidden in real text, and a span of text repeated
haystack.py    a text and the questions about it, which share its tokens
records.py     a haystack of many records, filled to a length and asked at every depth
json_object.py one JSON object of keys and values
biographies.py many short biographies, one attribute asked
needles.py     pass keys of several names, hidden in real text
"""

from ropewalk.data.retrieval.biographies import Documents, documents
from ropewalk.data.retrieval.haystack import Encode, Haystack, Question, TooShort
from ropewalk.data.retrieval.json_object import key_value
from ropewalk.data.retrieval.needles import needles, random_names
from ropewalk.data.retrieval.pass_key import (
    ANSWER,
    NEEDLE,
    QUESTION,
    Passkey,
    Tokens,
    passkey,
    random_key,
    random_span,
    repeat,
)

__all__ = [
    "ANSWER",
    "NEEDLE",
    "QUESTION",
    "Documents",
    "Encode",
    "Haystack",
    "Passkey",
    "Question",
    "TooShort",
    "Tokens",
    "documents",
    "key_value",
    "needles",
    "passkey",
    "random_key",
    "random_names",
    "random_span",
    "repeat",
]
