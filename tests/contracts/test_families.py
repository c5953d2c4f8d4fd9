"""The contract that every family keeps; a new plug-in is tested by existing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from personae.errors import ArtifactError, UnsupportedError
from personae.formats.format import export_file, formats
from personae.formats.layout import LAYOUTS
from tiny_world import artifact_of, bases, make


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
    base = bases()[name]
    assert set(base.file_layouts) <= set(LAYOUTS)
    assert base.file_layout in (base.file_layouts or {None})


FORMATS = [(name, each) for name in bases() for each in formats()]


@pytest.mark.parametrize(("name", "format_"), FORMATS)
def test_a_format_writes_for_a_family_or_refuses_it_in_a_line(
    name: str, format_: str, tmp_path: Path
) -> None:
    base, kind = bases()[name], formats()[format_]
    try:
        artifact = artifact_of(make(kind.techniques[0], base), base)
    except UnsupportedError:
        return
    refused = refusal_of(lambda: export_file(artifact, format_, tmp_path / "file", base))
    assert "\n" not in refused
    assert bool(list(tmp_path.iterdir())) != bool(refused)
    assert refused or kind.fits(type(base))


def refusal_of(attempt: Callable[[], object]) -> str:
    """Return the words in which an attempt is refused, or nothing if it is not."""
    try:
        attempt()
    except (UnsupportedError, ArtifactError) as error:
        return str(error)
    return ""
