"""Which documents the plan takes and how often, on the table of documents alone."""
