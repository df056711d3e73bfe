"""Which parameter names belong to an adapter. peft wraps a layer `L` as `L.base_layer`,
`L.lora_A.default` and so on."""

BASE_LAYER = "base_layer"


def is_adapter(name: str) -> bool:
    """Whether the parameter `name` is an adapter's own."""
    return any(part.startswith("lora_") for part in name.split("."))


def is_in_wrapped_layer(name: str) -> bool:
    """Whether the parameter is in a layer that has an adapter: the adapter's own or the layer's."""
    return is_adapter(name) or BASE_LAYER in name.split(".")


def unwrapped(name: str) -> str:
    """The name of a base parameter in the model without an adapter."""
    return name.replace(f".{BASE_LAYER}.", ".")
