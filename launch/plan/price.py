"""What the GPU-hours cost: by the user's price, or by the cheapest offer that gpuhunt lists."""

import importlib
import logging
import math
import re
from dataclasses import dataclass
from typing import Any

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.hardware_file import Hardware

CATALOG = "gpuhunt"
FORM = re.compile(r"[ -](SXM\d*|PCIE|\d+GB)\b.*", re.IGNORECASE)
"""What follows a GPU's name in CUDA's device name, and not in the catalog."""
TOLERANCE = 0.1
"""Between the memory that a driver reports and the one that a catalog prints."""


@dataclass(frozen=True)
class Price:
    per_gpu_hour: float
    origin: str = ""
    """The offer, where it is not the user's own price."""


def price_of(text: str, hardware: Hardware) -> Price:
    """`text`: of `--price`. Raises: ConfigError."""
    if text == CATALOG:
        return cheapest_offer(hardware)
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not 0 < price < math.inf:
        raise ConfigError(
            f"--price is {text}; it must be the price of one GPU-hour, above 0, or {CATALOG} "
            "(its cheapest offer on demand); correct it"
        )
    return Price(price)


def cheapest_offer(hardware: Hardware) -> Price:
    """The cheapest instance on demand with at most a node's GPUs, in US$. Reads the network."""
    try:
        gpuhunt: Any = importlib.import_module(CATALOG)
    except ImportError:
        raise ConfigError(
            f"--price is {CATALOG}; it needs the package {CATALOG}; pip install "
            "'ropewalk[prices]', or give the price of a GPU-hour"
        ) from None
    logging.getLogger(CATALOG).setLevel(logging.CRITICAL)  # a traceback for each of its catalogs
    try:
        offers = gpuhunt.query(**filters(hardware))
    except (gpuhunt.GPUHuntError, OSError) as error:
        raise ConfigError(
            f"--price is {CATALOG}; its catalog could not be read ({error}); give the price of a "
            "GPU-hour"
        ) from None
    if not offers:
        raise ConfigError(
            f"--price is {CATALOG}; it lists no {' or '.join(names(hardware))} on demand; give the "
            "price of a GPU-hour"
        )
    best = min(offers, key=lambda offer: offer.price / offer.gpu_count)
    origin = f"US$, {best.provider} {best.instance_name}, {best.location}"
    return Price(best.price / best.gpu_count, origin)


def filters(hardware: Hardware) -> dict[str, Any]:
    """Keyword arguments of gpuhunt's query."""
    memory = hardware.memory_bytes / 2**30
    return {
        "gpu_name": names(hardware),
        "min_gpu_memory": memory * (1 - TOLERANCE),
        "max_gpu_memory": memory * (1 + TOLERANCE),
        "min_gpu_count": 1,
        "max_gpu_count": hardware.gpus_per_node,
        "spot": False,
    }


def names(hardware: Hardware) -> list[str]:
    """As the catalog writes them: RTX4090, H100NVL."""
    return list(dict.fromkeys(FORM.sub("", n).replace(" ", "") for n in hardware.device_names))


def cost(gpu_hours: dict[str, float], price: Price) -> dict[str, Any]:
    """What a plan's JSON has beside its GPU-hours."""
    amounts = {name: hours * price.per_gpu_hour for name, hours in gpu_hours.items()}
    return {"price_per_gpu_hour": price.per_gpu_hour, "price_from": price.origin, "cost": amounts}
