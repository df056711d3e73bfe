"""The cost of GPU-hours: a price of the user's, or an offer that gpuhunt's own filter accepts."""

import inspect
import sys
import tomllib
from pathlib import Path
from typing import Any

import gpuhunt
import pytest

from ropewalk.conf import hardware_file
from ropewalk.conf.errors import ConfigError
from ropewalk.launch.plan import price, text

FILES = sorted(file.stem for file in Path(hardware_file.__file__).parent.glob("hardware/*.yaml"))
H100 = hardware_file.load("h100")


def offer(amount: float, count: int, **fields: Any) -> gpuhunt.CatalogItem:
    given = {"gpu_name": "H100", "gpu_memory": 80.0, "spot": False, "provider": "lambda"} | fields
    return gpuhunt.CatalogItem(
        instance_name=f"gpu_{count}x",
        location="us-east-1",
        price=amount,
        cpu=64,
        memory=900.0,
        gpu_count=count,
        disk_size=None,
        gpu_vendor=gpuhunt.AcceleratorVendor.NVIDIA,
        **given,
    )


@pytest.mark.parametrize("name", FILES)
def test_every_hardware_file_names_a_gpu_of_the_catalog(name: str) -> None:
    """Of the name and the memory that gpuhunt itself lists."""
    filters = price.filters(hardware_file.load(name))
    inspect.signature(gpuhunt.Catalog.query).bind(None, **filters)
    known = [
        info
        for info in (*gpuhunt.KNOWN_NVIDIA_GPUS, *gpuhunt.KNOWN_AMD_GPUS)
        if gpuhunt.matches(
            offer(1.0, 1, gpu_name=info.name, gpu_memory=info.memory),
            gpuhunt.QueryFilter(**filters),
        )
    ]
    assert known, filters


def test_the_cheapest_gpu_is_taken_not_the_cheapest_instance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offers = [
        offer(3.0, 1),
        offer(20.0, 8),
        offer(8.0, 8, spot=True),
        offer(16.0, 8, gpu_name="H200", gpu_memory=141.0),
        offer(30.0, 16),
    ]

    def query(**filters: Any) -> list[gpuhunt.CatalogItem]:
        inspect.signature(gpuhunt.Catalog.query).bind(None, **filters)
        return [o for o in offers if gpuhunt.matches(o, gpuhunt.QueryFilter(**filters))]

    monkeypatch.setattr(gpuhunt, "query", query)
    cheapest = price.price_of("gpuhunt", H100)
    assert cheapest == price.Price(2.5, "US$, lambda gpu_8x, us-east-1")
    offers.clear()
    with pytest.raises(ConfigError, match="it lists no H100 on demand; give the price"):
        price.price_of("gpuhunt", H100)


@pytest.mark.parametrize("error", [gpuhunt.GPUHuntError("no provider"), ConnectionError("closed")])
def test_a_catalog_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def query(**filters: Any) -> None:
        raise error

    monkeypatch.setattr(gpuhunt, "query", query)
    with pytest.raises(ConfigError, match=rf"could not be read \({error}\); give the price"):
        price.price_of("gpuhunt", H100)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpuhunt", None)
    with pytest.raises(ConfigError, match=r"needs the package gpuhunt; pip install 'ropewalk"):
        price.price_of("gpuhunt", H100)
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["prices"][0].startswith("gpuhunt>=")


@pytest.mark.parametrize("words", ["", "free", "0", "-1", "inf", "nan"])
def test_a_price_that_is_none(words: str) -> None:
    with pytest.raises(ConfigError, match=f"^--price is {words}; it must be the price of one"):
        price.price_of(words, H100)


def test_the_cost_is_that_of_the_gpu_hours() -> None:
    hours = {"low": 2.0, "likely": 3.0, "high": 4.0}
    phase = price.cost(hours, price.price_of("2.5", H100))
    assert phase["cost"] == {"low": 5.0, "likely": 7.5, "high": 10.0}
    assert text.cost([phase, phase]) == ", 10.00 to 20.00 at 2.50 each"
