"""The tokenizer of a run: exactly what the files beside the base's weights say.

transformers 5 builds some tokenizers from the class that tokenizer_config.json names, and then
splits text in that class's way and not in that of tokenizer.json. Here tokenizer.json alone gives
the ids, and the files go with the trained model as they came.

run_tokenizer.py   RunTokenizer: ids, special tokens and files; load, save, fingerprints
folder.py          the files of a folder or of the hub, read and refused
auto_tokenizer.py  AutoTokenizer of transformers, quiet
convert.py         a tokenizer without tokenizer.json, converted by transformers
readers.py         what transformers makes of the files: whether a server reads the same ids
code.py            the code files of a tokenizer of its own class
comparison.py      whether two tokenizers give the same ids: by their content, or on probe texts
token_bytes.py     bytes of text of each token, for losses per byte
failures.py        what a tokenizer raises for a text that it cannot encode
chat.py            a message in the model's chat template, as ids
scratch.py         train a tokenizer
"""

from ropewalk.data.tokenizer.chat import chat_encoder
from ropewalk.data.tokenizer.folder import read_model_config
from ropewalk.data.tokenizer.readers import for_readers
from ropewalk.data.tokenizer.run_tokenizer import (
    RunTokenizer,
    bos_id,
    encoding_fingerprint,
    files_fingerprint,
    load,
    save,
    size_problems,
    text_decoder,
    text_encoder,
    token_id,
    vocab_size,
)
from ropewalk.data.tokenizer.scratch import train
from ropewalk.data.tokenizer.token_bytes import byte_counter

__all__ = [
    "RunTokenizer",
    "bos_id",
    "byte_counter",
    "chat_encoder",
    "encoding_fingerprint",
    "files_fingerprint",
    "for_readers",
    "load",
    "read_model_config",
    "save",
    "size_problems",
    "text_decoder",
    "text_encoder",
    "token_id",
    "train",
    "vocab_size",
]
