"""Models: built with a rope plan applied before construction, and saved.

build.py           models with a plan applied, proved; eval loads through it
random_weights.py  weights of a base that is made from scratch
save.py            the model in Hugging Face form, written tensor by tensor
windows.py         limits beside the weights that name the old window, raised
companions.py      generation settings and licences, which go with the model
geometry.py        head sizes and sliding windows of a config
config_checks.py   what a config asks of the loss and of training
dropout.py         dropout and noise that a base's config asks for
left_out.py        what a config names and transformers does not compute
sliding_window.py  a base's window against the new one, and lifted on request
attention_swap.py  a live model run with another attention function
"""
