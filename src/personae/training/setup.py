"""What is made before a run's first step: techniques, training sets, class pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from personae.characters.character import Character
from personae.characters.reference import Reference
from personae.core.cache import TensorCache, default_folder
from personae.core.registry import lookup
from personae.core.seeds import generator_for
from personae.generation.generate import generate
from personae.generation.picture import Picture
from personae.generation.sampler import Shot
from personae.generation.settings import Sampling
from personae.models.family import Family
from personae.models.weights import sources
from personae.models.weights.unloaded import Aside, readable_again
from personae.techniques.technique import Technique
from personae.training.batches import TextSource, TrainingSet, make_items
from personae.training.events import Preparing
from personae.training.optim.optimizers import OWN_RATES
from personae.training.settings import RunConfig, Schedule


def build_techniques(config: RunConfig, character: Character, base: Family) -> list[Technique]:
    """Return the techniques of a run, not yet attached."""
    techniques = []
    for name, settings in config.technique_configs().items():
        kind = lookup(Technique, name)
        settings = kind.settings_for(settings, character.name, character.class_noun)
        techniques.append(kind(settings, base, generator_for(config.seed, "start", name)))
    return techniques


def phrase_of(techniques: Sequence[Technique], character: Character) -> str:
    """Return how prompts name the character: by the technique that brings a word of its own."""
    naming = next((each for each in techniques if each.names_character), techniques[0])
    return naming.phrase(character.name, character.class_noun)


def training_set(
    references: Sequence[Reference],
    character: Character,
    phrase: str,
    base: Family,
    cache: TensorCache,
    *,
    schedule: Schedule,
    config: RunConfig,
) -> TrainingSet:
    """Return the training set of `references`, with their captions."""
    captions = [
        (character.caption(each, phrase), character.caption(each, character.class_noun))
        for each in references
    ]
    items = make_items(references, captions, base, schedule)
    return TrainingSet(items, base, cache, schedule=schedule, seed=config.seed)


def resting(config: RunConfig, base: Family, parts: dict[str, torch.nn.Module]) -> Aside:
    """Return what can leave memory and be read again: `parts`, by component name, or nothing.

    Only where `config.unload` asks for it, and only what lies in a file that is read here.
    """
    if not config.unload:
        return Aside([])
    return Aside(list(readable_again(sources.local_folder(base.source), parts)))


def unload(config: RunConfig, base: Family, texts: TextSource, sets: list[TrainingSet]) -> Aside:
    """Put aside what the caches make needless, with every caption of `sets` encoded before."""
    parts = {"vae": base.autoencoder}
    if config.unload and texts.frozen:
        parts |= {name: each for name, each in base.networks.items() if name != "denoiser"}
        encode_captions(texts, sets)
    aside = resting(config, base, parts)
    aside.put()
    return aside


def encode_captions(texts: TextSource, sets: list[TrainingSet]) -> None:
    """Fill the cache of encoded captions with those of `sets`, and the empty one."""
    captions = [text for each in sets for item in each.items for text in item.captions]
    for caption in dict.fromkeys(["", *captions]):
        texts([caption])


def class_references(
    base: Family, character: Character, schedule: Schedule, seed: int
) -> Iterator[Preparing]:
    """Draw class pictures unless the character brings its own; returns references."""
    if character.prior:
        return character.prior
    return (yield from draw_prior(base, character.class_noun, schedule, seed))


def draw_prior(base: Family, class_noun: str, schedule: Schedule, seed: int) -> Iterator[Preparing]:
    """Draw class pictures with the untouched base, once per base and class; returns references."""
    folder = default_folder() / "class_pictures" / base.fingerprint / f"{class_noun}-{seed}"
    caption = f"a {class_noun}"
    paths = [folder / f"{i:04d}.png" for i in range(schedule.prior_images)]
    missing = [i for i, path in enumerate(paths) if not path.is_file()]
    shots = [Shot(caption, generator_for(seed, "class", i).initial_seed() % 2**31) for i in missing]
    drawn = 0
    for event in generate(base, shots, Sampling(steps=20)):
        if isinstance(event, Picture):
            event.save(paths[missing[drawn]])
            drawn += 1
            yield Preparing("drawing class pictures", drawn, len(missing))
    return [Reference(path, caption) for path in paths]


def parameter_groups(
    techniques: Sequence[Technique], schedule: Schedule, base: Family
) -> list[dict[str, Any]]:
    """Return the optimiser's groups of all techniques, set to training."""
    return [
        group
        for each in techniques
        for group in each.train().parameter_groups(*_rates(each, techniques[0], schedule, base))
    ]


def _rates(
    technique: Technique, first: Technique, schedule: Schedule, base: Family
) -> tuple[float, float]:
    """Return learning rate and decay; further techniques keep their own, scaled alike."""
    own = base.recommended(technique.name, technique.recommended)
    if technique is first or schedule.optimizer in OWN_RATES:
        return schedule.learning_rate, schedule.weight_decay
    leader = base.recommended(first.name, first.recommended)
    return own.learning_rate * schedule.learning_rate / leader.learning_rate, own.weight_decay
