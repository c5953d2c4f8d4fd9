"""What is made before a run's first step: techniques, training sets, optimiser, trainer."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import chain
from typing import Any

from torch import Tensor, nn

from personae.characters.character import Character
from personae.characters.reference import Reference
from personae.core.cache import TensorCache, default_folder
from personae.core.registry import lookup
from personae.core.seeds import generator_for
from personae.errors import UsageError
from personae.evaluation.settings import suite_for
from personae.models.family import Family
from personae.models.weights import sources
from personae.models.weights.quantised import refuse_quantised
from personae.models.weights.unloaded import Unloaded, readable_again
from personae.techniques.technique import Technique
from personae.training.batches import TrainingSet, make_items
from personae.training.events import Preparing
from personae.training.optim.names import OWN_RATES
from personae.training.optim.optimizers import make_optimizer
from personae.training.optim.updates import UpdateRule, make_update
from personae.training.prior import class_references, mention_unused
from personae.training.probe import FrozenProbe, PromptProbe
from personae.training.schedule import Schedule
from personae.training.settings import RunConfig
from personae.training.texts import TextSource
from personae.training.trainer import PROBE_PICTURES, Trainer

SCENES = 8  # looked at by the monitor; a row of a forward pass each, twice


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
    config: RunConfig,
) -> TrainingSet:
    """Return the training set of `references`, with their captions."""
    captions = [
        (character.caption(each, phrase), character.caption(each, character.class_noun))
        for each in references
    ]
    items = make_items(references, captions, base, config.schedule)
    return TrainingSet(items, base, cache, schedule=config.schedule, seed=config.seed)


def unloadable(config: RunConfig, base: Family, parts: dict[str, nn.Module]) -> Unloaded:
    """Return what can leave memory and be read again: `parts`, by component name, or nothing.

    Only where `config.unload` asks for it, and only what lies in a file that is read here.
    """
    if not config.unload:
        return Unloaded([])
    return Unloaded(list(readable_again(sources.local_folder(base.source), parts)))


def denoiser_unloaded(config: RunConfig, base: Family) -> Unloaded:
    """Return the denoiser, to be out of memory for a while, where that is possible and asked."""
    if base.unloaded.away:
        return base.unloaded
    return unloadable(config, base, {} if base.offloaded else base.components.denoiser)


def unload(config: RunConfig, base: Family, texts: TextSource, captions: Sequence[str]) -> None:
    """Unload what the caches make needless, with all `captions` encoded before.

    `base.unloaded` holds it, and brings it back.
    """
    if not config.unload:
        return
    parts = base.components.autoencoder
    if texts.frozen:
        parts |= base.components.text_encoders
        encode_captions(texts, captions)
    base.unloaded = unloadable(config, base, parts)
    base.unloaded.unload()


def encode_captions(texts: TextSource, captions: Sequence[str]) -> None:
    """Fill the cache of encoded captions with these and the empty one."""
    for caption in dict.fromkeys(["", *captions]):
        texts([caption])


def captions_of(pictures: TrainingSet) -> list[str]:
    """Return every caption that a training set may ask for."""
    return [caption for item in pictures.items for caption in item.captions]


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
        return schedule.peak_rate, schedule.decay
    leader = base.recommended(first.name, first.recommended)
    return own.learning_rate * schedule.peak_rate / leader.learning_rate, own.weight_decay


def refuse_distilled(config: RunConfig, base: Family) -> None:
    """Raise UsageError for a base that was distilled to draw in few steps, unless asked for."""
    if base.distilled_from is not None and not config.distilled:
        raise UsageError(
            f"base '{base.source}' was distilled to draw in few steps, and training would undo "
            f"that first; train on {base.distilled_from}, or add --distilled if its distillation "
            "was undone already"
        )


def set_up(
    config: RunConfig, character: Character, base: Family
) -> Generator[Preparing, None, Trainer]:
    """Tell what is being prepared and return the trainer, with nothing attached to `base` yet.

    Args:
        config: the run, resolved.
        character: whose pictures are trained on.
        base: loaded; where memory is short, with its denoiser unloaded. With `config.unload`,
            `base.unloaded` then holds what is in memory only while it is called.

    Raises:
        UsageError: the base was distilled to draw in few steps, or a setting does not fit it.
    """
    refuse_distilled(config, base)
    techniques = build_techniques(config, character, base)
    if any(technique.changes_weights for technique in techniques):
        refuse_quantised(base.overlay(base.denoiser).network)  # before anything is encoded
    phrase = phrase_of(techniques, character)
    cache = TensorCache(default_folder())
    texts = TextSource(base, cache, frozen=not any(each.trains_text for each in techniques))

    def shown(references: Sequence[Reference]) -> TrainingSet:
        return training_set(references, character, phrase, base, cache, config)

    pictures = shown(character.references)
    kept = shown(character.held_out) if character.held_out else None
    prompts = prompt_probe(config, base)
    watched = [*prompts.captions(phrase), *prompts.captions(character.class_noun)]
    yield from _encode(config, base, texts, [pictures, *([kept] if kept else [])], watched)
    prior = None
    mention_unused(character, config.schedule)
    if config.schedule.prior == "images":
        drawn = yield from class_references(base, character, config.schedule, config.seed)
        prior = shown(drawn)
        prior.encoder = pictures.encoder  # the autoencoder's values may be out of memory by now
        if base.unloaded.away and texts.frozen:
            encode_captions(texts, captions_of(prior))
    held_out = FrozenProbe(base, kept.first(PROBE_PICTURES), config.seed) if kept else None
    update, average = _updating(techniques, config.schedule, base, config.seed)
    about = (config, base, character, techniques, phrase)
    return Trainer(*about, texts, pictures, prior, held_out, prompts, update, average)


def _encode(
    config: RunConfig,
    base: Family,
    texts: TextSource,
    sets: Sequence[TrainingSet],
    captions: Sequence[str],
) -> Iterator[Preparing]:
    """Fill the cache with `sets` while the denoiser is out of memory, then unload the encoders.

    `captions` are needed besides those of `sets`.
    """
    with denoiser_unloaded(config, base):
        for done, total in chain.from_iterable(each.prepare() for each in sets):
            yield Preparing("encoding pictures", done, total)
        unload(config, base, texts, [*chain.from_iterable(map(captions_of, sets)), *captions])


def prompt_probe(config: RunConfig, base: Family) -> PromptProbe:
    """Return the probe on scenes of the suite that the character would be judged by."""
    suite = suite_for(base.source, config.judging.suite)
    scenes = [shot.prompt for shot in suite.of_kind("scene")]
    unlike = scenes if len(scenes) > 1 else [shot.prompt for shot in suite.shots]
    side = config.schedule.resolution or base.resolution
    return PromptProbe(base, unlike[:SCENES], (side, side), config.schedule.most_rows)


def _updating(
    techniques: Sequence[Technique], schedule: Schedule, base: Family, seed: int
) -> tuple[UpdateRule, list[Tensor] | None]:
    """Return what applies gradients, and the moving averages of what is trained, if any."""
    groups = parameter_groups(techniques, schedule, base)
    lean = schedule.update == "in_backward"
    optimizer = make_optimizer(schedule.optimizer, groups, seed=seed, lean=lean)
    trained = [p for group in groups for p in group["params"]]
    average = [p.detach().float().clone() for p in trained] if schedule.ema else None
    return make_update(schedule.update, optimizer, schedule.max_grad_norm), average
