"""What a setting's field may say of itself, beside its type and default."""

from dataclasses import field
from typing import Any


def neutral(default: Any = None, **kwargs: Any) -> Any:
    """A field that does not decide the content of a stage."""
    given = {} if "default_factory" in kwargs else {"default": default}
    return field(metadata={"neutral": True}, **given, **kwargs)
