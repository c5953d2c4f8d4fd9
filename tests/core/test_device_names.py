"""Names of devices and formats, known without torch."""

from __future__ import annotations

import pytest

from personae.core import device_names, devices
from personae.core.device_names import check_device, check_precision
from personae.errors import UsageError
from personae.models.weights import quantised


def test_formats_are_those_that_networks_are_loaded_in() -> None:
    assert set(device_names.PRECISIONS) == set(devices.PRECISIONS)
    assert set(device_names.QUANTISED) == set(quantised.QUANTISED)


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda:1", "meta"])
def test_a_device_may_have_a_number(name: str) -> None:
    check_device(name)


@pytest.mark.parametrize("name", ["gpu", "auto:1", "cuda:", "cuda:a", "cuda:1:2", ""])
def test_what_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"device is '{name}'; it must be one of auto, cuda"):
        check_device(name)


def test_what_is_no_format_is_refused() -> None:
    for name in ("auto", "nf4", "fp16"):
        check_precision(name)
    with pytest.raises(UsageError, match=r"precision is 'fp8'; it must be auto, fp32, .*, nf4"):
        check_precision("fp8")
