"""Documents -> tokens, written once: shards, the store they make, and how many processes share the work."""
