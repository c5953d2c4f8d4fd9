"""The end of a run: the proof that the saved file draws what memory drew, and last previews."""

from __future__ import annotations

from collections.abc import Iterator

from personae.artifacts.artifact import Artifact
from personae.core.event import Event
from personae.errors import TrainingError
from personae.generation.cast import Cast, Member
from personae.training.events import Finished, MonitorNote
from personae.training.previews import draw_previews, saved
from personae.training.run_folder import RunFolder, RunResult
from personae.training.trainer import Trainer, artifact_of

PROOF_STEPS = 4  # a difference in what was saved shows in the first of them


def finish(trainer: Trainer, folder: RunFolder) -> Iterator[Event]:
    """Save, read the file back, and prove that it draws what memory drew.

    Raises:
        TrainingError: something was not learnt or not saved.
    """
    trainer.use_average()
    for technique in trainer.techniques:
        technique.round_as_stored()
        technique.eval()
    artifact = artifact_of(trainer)
    yield from _report_dead(artifact, trainer)
    in_memory = Member(artifact, techniques=trainer.techniques)
    from_memory = draw_previews(trainer, Cast({"character": in_memory}), PROOF_STEPS)
    name = artifact.file_name(trainer.character.name)
    path = artifact.save(folder.path / name)
    record = artifact.card.training
    del artifact, in_memory  # they hold what the file is about to bring once more
    trainer.release()
    reread = Cast({"character": Member(Artifact.load(path), path=path)})
    with reread.on(trainer.base):
        from_file = draw_previews(trainer, reread, PROOF_STEPS)
        previews = draw_previews(trainer, reread)
    for mine, theirs in zip(from_memory, from_file, strict=True):
        if mine.image.tobytes() != theirs.image.tobytes():
            raise TrainingError(
                f"{path}: the file draws another picture than memory did; please report this"
            )
    yield from saved(previews, folder, trainer.schedule.total_steps)
    finished = Finished(
        path, record.seconds, record.peak_bytes, record.parameters, path.stat().st_size
    )
    folder.write_result(
        RunResult(artifact=path.name, training=record, file_bytes=finished.file_bytes)
    )
    yield finished


def _report_dead(artifact: Artifact, trainer: Trainer) -> Iterator[MonitorNote]:
    """Warn of tensors that are zero, as layers without influence on the picture have.

    Raises:
        TrainingError: all are zero.
    """
    dead = [name for name, tensor in artifact.tensors.items() if not tensor.any()]
    if len(dead) == len(artifact.tensors):
        raise TrainingError(
            f"all {len(dead)} tensors are zero after {trainer.schedule.total_steps} steps; nothing "
            f"was learnt, or less than the file's number format can hold; use a higher learning "
            f"rate than {trainer.schedule.learning_rate:.1e}"
        )
    if dead:
        message = (
            f"{len(dead)} of {len(artifact.tensors)} tensors are zero ('{dead[0]}' first) and have "
            "no effect; they learnt nothing, or less than the file's number format can hold"
        )
        yield MonitorNote(trainer.schedule.total_steps, "warning", message, 0.0, 0.0)
