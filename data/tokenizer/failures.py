"""What a tokenizer raises for a text that it cannot encode."""

PANIC = "PanicException"  # of pyo3, which exports no such name


def is_refusal(error: BaseException) -> bool:
    """Whether the error is a tokenizer's own: it lacks a token for unknown letters, or its parts
    contradict each other.

    tokenizers raises plain Exception, and a panic of its Rust is not even one of these.
    """
    return type(error) is Exception or type(error).__name__ == PANIC
