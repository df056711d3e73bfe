"""Synthetic retrieval on token ids. Pure.

The data stage makes training documents with it, the training and the eval stage questions.

pass_key.py    a pass key hidden in real text, and a span of text repeated
haystack.py    a text and the questions about it, which share its tokens
json_object.py one JSON object of keys and values, asked at many places
"""

from ropewalk.data.retrieval.haystack import Encode, Haystack, Question
from ropewalk.data.retrieval.json_object import key_value
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
    "Encode",
    "Haystack",
    "Passkey",
    "Question",
    "Tokens",
    "key_value",
    "passkey",
    "random_key",
    "random_span",
    "repeat",
]
