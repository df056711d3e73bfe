"""Models: built with a rope plan applied, wrapped with their loss, saved.

build.py       models with a plan applied before construction, proved; eval's face
init.py        random weights of a model from scratch
save.py        full tensors, and the model in Hugging Face form
"""
