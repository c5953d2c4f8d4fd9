"""The contract that every family keeps; a new plug-in is tested by existing."""

from __future__ import annotations

import pytest
from torch import nn

from personae.formats.layout import LAYOUTS
from tiny_world import bases


@pytest.mark.parametrize("name", bases())
def test_components_are_all_networks_each_under_one_name(name: str) -> None:
    base = bases()[name]
    parts = base.components
    assert list(parts.denoiser.values()) == [base.denoiser]
    assert list(parts.autoencoder.values()) == [base.autoencoder]
    assert list(parts.text_encoders.values()) == [tower.encoder for tower in base.towers]
    assert set(parts.all.values()) == {*base.networks.values(), base.autoencoder}
    assert len(parts.all) == len(parts.denoiser) + len(parts.autoencoder) + len(base.towers)


@pytest.mark.parametrize("name", bases())
def test_layers_are_every_linear_and_convolution_by_network_and_name(name: str) -> None:
    base = bases()[name]
    found = base.layers()
    for each, layer in found.items():
        network, path = each.split(".", 1)
        assert base.networks[network].get_submodule(path) is layer
    kinds = (nn.Linear, nn.Conv2d)
    parts = [part for network in base.networks.values() for part in network.modules()]
    assert len(found) == sum(isinstance(part, kinds) for part in parts) > 0


@pytest.mark.parametrize("name", bases())
def test_the_kind_of_file_is_one_that_the_formats_know_or_none(name: str) -> None:
    assert bases()[name].file_layout in {*LAYOUTS, None}
