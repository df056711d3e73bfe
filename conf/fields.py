"""What a setting's field may say of itself, beside its type and default."""

from dataclasses import MISSING, Field, field
from typing import Any


def not_fingerprinted(default: Any = None, **kwargs: Any) -> Any:
    """A field that does not decide the content of a stage."""
    given = {} if "default_factory" in kwargs else {"default": default}
    return field(metadata={"neutral": True}, **given, **kwargs)


def fingerprint_if_set(default: Any = MISSING, **kwargs: Any) -> Any:
    """A field that came later: at its default it is in no fingerprint, so that what was made before it stands. None if no default is said."""
    if "default_factory" not in kwargs:
        kwargs["default"] = None if default is MISSING else default
    return field(metadata={"added": True}, **kwargs)


def is_default(of: "Field[Any]", value: Any) -> bool:
    factory: Any = of.default_factory
    return bool(value == (factory() if of.default is MISSING else of.default))
