import pytest
import torch

from personae.artifacts.artifact import Artifact
from personae.artifacts.extract import extract
from personae.artifacts.low_rank import updates_of
from personae.artifacts.merge import dare, merge, resize, ties
from personae.core.registry import lookup
from personae.errors import ArtifactError, UnsupportedError, UsageError
from personae.techniques.technique import Technique
from tiny_world import bases


def trained(name: str, base, seed: int = 1, size: float = 0.2, **settings) -> Artifact:
    kind = lookup(Technique, name)
    generator = torch.Generator().manual_seed(seed)
    technique = kind(kind.Config(**settings), base, generator)
    with torch.no_grad():
        for parameter in technique.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * size)
    character = {"name": f"c{seed}", "class_noun": "cat", "phrase": f"c{seed} cat"}
    return Artifact.of([technique], base, character=character)


@pytest.fixture(scope="module")
def base():
    return bases()["tiny-sd1"]


def deltas(artifact: Artifact) -> dict[str, torch.Tensor]:
    return {layer: update.delta() for layer, update in updates_of(artifact).items()}


def test_a_linear_merge_is_the_exact_sum(base):
    a = trained("lora", base, 1, rank=2, targets="all")
    b = trained("lora", base, 2, rank=4, alpha=1.0, targets="cross_attention")
    merged = merge([(a, 0.7), (b, -0.5)])
    first, second, both = deltas(a), deltas(b), deltas(merged)
    assert set(both) == set(first) | set(second)
    for layer, delta in both.items():
        wanted = 0.7 * first[layer]
        if layer in second:
            wanted = wanted - 0.5 * second[layer]
        torch.testing.assert_close(delta, wanted, rtol=0, atol=2e-3)
    assert merged.build(base)[0].config.rank == 6
    assert merged.card.character.phrase == "c1 cat and c2 cat"


def test_merging_with_full_rank_by_svd_is_the_sum_too(base):
    a, b = (trained("lora", base, seed, rank=2) for seed in (1, 2))
    linear, svd = deltas(merge([(a, 1.0), (b, 1.0)])), merge([(a, 1.0), (b, 1.0)], "svd", rank=4)
    for layer, delta in deltas(svd).items():
        torch.testing.assert_close(delta, linear[layer], rtol=0, atol=3e-3)
    assert float(svd.card.notes["kept energy"]) > 0.9999
    small = merge([(a, 1.0), (b, 1.0)], "svd", rank=1)
    assert float(small.card.notes["kept energy"]) < 0.95
    assert small.build(base)[0].config.rank == 1


@pytest.mark.parametrize("method", ["ties", "dare"])
def test_ties_and_dare_repeat_themselves_and_draw_from_no_global_state(method, base):
    a, b = (trained("lora", base, seed, rank=2) for seed in (1, 2))
    first = merge([(a, 1.0), (b, 1.0)], method, rank=8, density=0.5)
    state = torch.random.get_rng_state()
    again = merge([(a, 1.0), (b, 1.0)], method, rank=8, density=0.5)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.card.content_hash == again.card.content_hash
    plain = deltas(merge([(a, 1.0), (b, 1.0)]))
    assert any((delta - plain[layer]).abs().max() > 0.05 for layer, delta in deltas(first).items())
    assert first.build(base)


@pytest.mark.parametrize("density", [0.01, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("shape", [(5, 7), (6, 4, 3, 3), (1, 1)])
def test_ties_and_dare_equal_those_of_peft(shape, density):
    peft = pytest.importorskip("peft.utils.merge_utils")
    changes = [torch.randn(shape, generator=generator(seed)) for seed in range(3)]
    strengths = [0.7, -0.5, 1.0]
    changes[1] = changes[0].neg()  # sums of zero, and signs against each other
    given = torch.tensor(strengths)
    assert torch.equal(ties(changes, strengths, density), peft.ties(changes, given, density))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(11)
        wanted = peft.dare_linear(changes, given, density)
    assert torch.equal(dare(changes, strengths, density, generator(11)), wanted)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_ties_by_hand():
    """Trimmed to two of four values, each value is the mean of those with the elected sign."""
    first, second = torch.tensor([4.0, -3.0, 0.5, 0.1]), torch.tensor([2.0, 0.1, -6.0, 0.2])
    assert ties([first, second], [1.0, 1.0], 0.5).tolist() == [3.0, -3.0, -6.0, 0.0]
    against = torch.tensor([-9.0, 8.0, 0.0, 0.0])
    assert ties([first, against], [1.0, 0.5], 0.5).tolist() == [-4.5, 4.0, 0.0, 0.0]


def test_dare_keeps_its_share_and_the_mean():
    kept = dare([torch.ones(200, 200)], [2.0], 0.25, generator(1))
    assert set(kept.unique().tolist()) == {0.0, 8.0}
    assert kept.mean().item() == pytest.approx(2.0, rel=0.05)


def test_ties_with_everything_kept_and_one_sign_is_the_sum(base):
    a = trained("lora", base, 1, rank=2)
    merged = merge([(a, 0.5), (a, 0.5)], "ties", rank=2, density=0.9999)
    wanted = deltas(a)
    for layer, delta in deltas(merged).items():
        # both votes agree everywhere, so the disjoint mean of the two halves is half of the whole
        ratio = (delta * wanted[layer]).sum() / wanted[layer].square().sum()
        torch.testing.assert_close(delta, ratio * wanted[layer], rtol=0, atol=3e-3)


def test_resizing_to_the_true_rank_loses_nothing_and_below_it_says_what(base):
    artifact = trained("lora", base, rank=4, targets="all", text_encoder=True)
    same = resize(artifact, rank=4)
    wanted = deltas(artifact)
    for layer, delta in deltas(same).items():
        torch.testing.assert_close(delta, wanted[layer], rtol=0, atol=5e-3)
    assert float(same.card.notes["kept energy"]) == pytest.approx(1.0)
    small = resize(artifact, rank=2)
    kept = float(small.card.notes["kept energy"])
    lost = sum(float((d - wanted[n]).square().sum()) for n, d in deltas(small).items())
    whole = sum(float(d.square().sum()) for d in wanted.values())
    assert kept == pytest.approx(1 - lost / whole, abs=1e-3)
    assert max(u.rank for u in updates_of(small).values()) == 2
    share = resize(artifact, share=0.6)
    assert 0.6 <= float(share.card.notes["kept energy"]) < 1


def test_a_lora_extracted_at_the_true_rank_is_the_difference(base):
    lora = trained("lora", base, rank=2, targets="attention")
    dream = trained("dreambooth", base, size=0.0)
    tensors = {
        name: deltas(lora).get(
            name.removeprefix("dreambooth.deltas.").removesuffix(".weight"), value
        )
        for name, value in dream.tensors.items()
    }
    extracted = extract(Artifact(dream.card, tensors), base, rank=2)
    wanted = deltas(lora)
    assert set(deltas(extracted)) == set(wanted)
    for layer, delta in deltas(extracted).items():
        torch.testing.assert_close(delta, wanted[layer], rtol=0, atol=3e-3)
    assert float(extracted.card.notes["kept energy"]) > 0.9999
    whole = extract(trained("dreambooth", base, text_encoder=True), base, rank=4)
    assert 0 < float(whole.card.notes["kept energy"]) < 0.9
    assert "norms" in whole.card.notes["left out"]
    assert whole.build(base)


def test_a_linear_hypernetwork_becomes_the_lora_that_does_the_same(base):
    network = trained(
        "hypernetwork", base, activation="linear", layer_structure=[1, 0.125, 1], size=0.3
    )
    tensors = {
        name: torch.zeros_like(value) if name.endswith("bias") else value
        for name, value in network.tensors.items()
    }
    network = Artifact(network.card, tensors)
    lora = extract(network, base, rank=8)
    noisy, states = torch.ones(1, 4, 8, 8), torch.linspace(-1, 1, 7 * 24).reshape(1, 7, 24)
    drawn = []
    for artifact in (network, lora):
        (technique,) = artifact.build(base)
        technique.inject()
        drawn.append(base.denoiser(noisy, 500, encoder_hidden_states=states).sample)
        technique.eject()
    bare = base.denoiser(noisy, 500, encoder_hidden_states=states).sample
    assert (drawn[0] - bare).abs().max() > 0.01
    assert (drawn[0] - drawn[1]).abs().max() < 2e-3
    for settings in ({"activation": "relu"}, {"activation": "linear"}):
        with pytest.raises(UnsupportedError, match="linear"):
            extract(trained("hypernetwork", base, **settings), base)


def test_what_cannot_be_merged_or_extracted_is_refused(base):
    lora = trained("lora", base, rank=2)
    with pytest.raises(UsageError, match="two artifacts"):
        merge([(lora, 1.0)])
    with pytest.raises(UsageError, match="density"):
        merge([(lora, 1.0), (lora, 1.0)], "ties", density=0)
    with pytest.raises(UsageError, match="method"):
        merge([(lora, 1.0), (lora, 1.0)], "average")
    with pytest.raises(UsageError, match="rank is 0"):
        resize(lora, rank=0)
    with pytest.raises(UsageError, match="share"):
        resize(lora, share=1.5)
    with pytest.raises(ArtifactError, match="expected a lora"):
        resize(trained("hypernetwork", base))
    with pytest.raises(UnsupportedError, match="no change of weights"):
        extract(trained("textual_inversion", base, initializer_words="cat"), base)
    other = trained("lora", bases()["tiny-sd2"], rank=2)
    with pytest.raises(ArtifactError, match="unlike bases"):
        merge([(lora, 1.0), (other, 1.0)])
    with pytest.raises(ArtifactError, match="load that base, or train anew"):
        extract(other, base)
