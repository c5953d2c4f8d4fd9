"""The end of a run: previews, and the proof that the saved file draws what memory drew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from personae.artifact import Artifact, CharacterRecord, TrainingRecord
from personae.cast import Cast, Member
from personae.devices import peak_bytes
from personae.errors import TrainingError
from personae.events import Event, Finished, Preview, Verdict
from personae.generation import Shot, draw
from personae.pictures import Picture, Sampling
from personae.run_folder import RunFolder
from personae.workbench import Workbench

PREVIEW_STEPS = 15


def artifact_of(bench: Workbench) -> Artifact:
    """Return what the run has learnt by now, with its card."""
    character = bench.character
    return Artifact.of(
        bench.techniques,
        bench.base,
        character=CharacterRecord(
            name=character.name,
            class_noun=character.class_noun,
            phrase=bench.phrase,
            fingerprint=character.fingerprint,
        ),
        training=TrainingRecord(
            steps=bench.schedule.steps,
            batch_size=bench.schedule.batch_size * bench.schedule.gradient_accumulation,
            pictures=len(character.references),
            seed=bench.config.seed,
            seconds=round(bench.seconds, 3),
            peak_bytes=peak_bytes(bench.base.device),
            parameters=sum(each.parameter_count for each in bench.techniques),
            device=bench.base.device.type,
            schedule=bench.schedule.model_dump(mode="json"),
        ),
    )


def _draw_previews(bench: Workbench, cast: Cast) -> list[Picture]:
    shots = [Shot(prompt, bench.config.seed) for prompt in bench.config.preview_prompts]
    with bench.whole():
        return draw(bench.base, shots, Sampling(steps=PREVIEW_STEPS), cast)


def preview(bench: Workbench, folder: RunFolder, step: int) -> Iterator[Preview]:
    """Draw the preview prompts with what is in memory."""
    for technique in bench.techniques:
        technique.eval()
    cast = Cast({"character": Member(artifact_of(bench), techniques=bench.techniques)})
    for number, picture in enumerate(_draw_previews(bench, cast)):
        yield Preview(step, picture.save(preview_file(folder.path, step, number)))
    for technique in bench.techniques:
        technique.train()


def finish(bench: Workbench, folder: RunFolder) -> Iterator[Event]:
    """Save, read the file back, and prove that it draws what memory drew.

    Raises:
        TrainingError: something was not learnt or not saved.
    """
    bench.use_average()
    for technique in bench.techniques:
        technique.round_as_stored()
        technique.eval()
    artifact = artifact_of(bench)
    yield from _report_dead(artifact, bench)
    cast = Cast({"character": Member(artifact, techniques=bench.techniques)})
    from_memory = _draw_previews(bench, cast)
    name = f"{bench.character.name}.{artifact.technique}.safetensors"
    path = artifact.save(folder.path / name)
    bench.eject()
    reread = Cast({"character": Member(Artifact.load(path), path=path)})
    with reread.on(bench.base):
        from_file = _draw_previews(bench, reread)
    for number, (mine, theirs) in enumerate(zip(from_memory, from_file, strict=True)):
        if mine.image.tobytes() != theirs.image.tobytes():
            raise TrainingError(
                f"{path}: the file draws another picture than memory did; please report this"
            )
        step = bench.schedule.steps
        yield Preview(step, theirs.save(preview_file(folder.path, step, number)))
    record = artifact.card.training
    finished = Finished(
        path, record.seconds, record.peak_bytes, record.parameters, path.stat().st_size
    )
    folder.write_result(
        {
            "artifact": path.name,
            "training": record.model_dump(mode="json"),
            "file_bytes": finished.file_bytes,
        }
    )
    yield finished


def _report_dead(artifact: Artifact, bench: Workbench) -> Iterator[Verdict]:
    """Warn of tensors that are zero, as layers without influence on the picture have.

    Raises:
        TrainingError: all are zero.
    """
    dead = [name for name, tensor in artifact.tensors.items() if not tensor.any()]
    if len(dead) == len(artifact.tensors):
        raise TrainingError(
            f"all {len(dead)} tensors are zero after {bench.schedule.steps} steps; nothing was "
            f"learnt, or less than the file's number format can hold; use a higher learning rate "
            f"than {bench.schedule.learning_rate:.1e}"
        )
    if dead:
        message = (
            f"{len(dead)} of {len(artifact.tensors)} tensors are zero ('{dead[0]}' first) and have "
            "no effect; they learnt nothing, or less than the file's number format can hold"
        )
        yield Verdict(bench.schedule.steps, "warning", message, 0.0, 0.0)


def preview_file(folder: Path, step: int, number: int) -> Path:
    """Return where preview `number` of `step` goes."""
    return folder / "previews" / f"step-{step:06d}-{number}.png"
