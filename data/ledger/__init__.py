"""The ledger: what a plan holds, counted from its pieces and the stores.

statistics.py     counts of pieces, documents and own context
piece_sums.py     their sums over the plan's blocks
document_sums.py  their sums over the documents of a source
entries.py        the entries of the plan and of each source; the proof
balance.py        attention work of the sequences, and the predicted waiting
findings.py       notes and warnings
terminal.py       the ledger as tables in a terminal
samples.py        sample sequences, decoded
"""
