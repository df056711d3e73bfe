"""A GGUF file as base: read in full or refused, dequantised once to a Hugging Face folder.

convert.py    the folder in the cache, known by the file's content
header.py     the file's keys and tensors; a damaged file is refused
shape.py      its keys as a transformers config; a key without a place there is refused
rope_keys.py  its rotary keys and tensors as `rope_parameters`
tokenizer.py  its tokenizer, split as `tokenizer.ggml.pre` says
"""
