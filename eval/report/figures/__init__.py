"""Drawings of the page. Each function returns inline SVG or HTML, or None without data.

style.py    colours, axes, SVG and PNG      data.py         tokens by document length, own context
columns.py  one style a column of results
loss.py     loss curves by model            training.py     curves of the training, phases
heatmap.py  a share by length and depth   calibration.py  methods before training, the search
curves.py   a value by depth or length      perplexity.py   perplexity by length or window
rope.py     wavelengths of the rotary table
"""
