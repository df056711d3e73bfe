"""The base's weights, held against its config before any data is written, and after each load.

config_file.py   config.json: its JSON, and sizes that can be
headers.py       the header of a .safetensors file, by the format's own definition
shards.py        the files that transformers reads, their index, and other weights in the folder
architecture.py  the headers against the parameters of the architecture, by transformers' own rules
conversion.py    which tensors of the files make a parameter
safetensors_file.py  writes a file tensor by tensor
values.py        values that are not finite: sampled in files, all in a loaded model
hub_cache.py     the folder of a base that has a Hub name
loading.py       loads a model; nothing may be new or left over
one_reader.py    one rank loads it, and the others receive it
check.py         all of this for the weights of one base
other_files.py   what lies beside them: an adapter, pointers of git-lfs
"""
