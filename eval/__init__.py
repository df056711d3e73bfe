"""Loss by position, perplexity, retrieval, and the report."""
