"""Drawings of the page. Each function returns inline SVG or HTML, or None without data.

style.py    colours, axes, SVG output       data.py         tokens by document length, own context
loss.py     loss curves by model            training.py     curves of the training, phases
heatmap.py  accuracy by length and depth    calibration.py  methods before training, the search
rope.py     wavelengths of the rotary table
"""
