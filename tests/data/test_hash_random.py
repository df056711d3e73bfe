"""The hash behind every draw, against published values."""

import hashlib

import numpy as np

from ropewalk.data.hash_random import document_key, splitmix64


def test_splitmix64_gives_its_published_sequence() -> None:
    """The first five numbers from seed 1234567, as the authors' C and Java programs give them."""
    states = [(1234567 + k * 0x9E3779B97F4A7C15) % 2**64 for k in range(5)]
    assert splitmix64(np.array(states, dtype=np.uint64)).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_a_documents_key_is_the_first_64_bits_of_its_sha_256() -> None:
    assert document_key("a/b.txt") == int(hashlib.sha256(b"a/b.txt").hexdigest()[:16], 16)
