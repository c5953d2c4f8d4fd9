"""One portable `.persona` file: a character's pictures, all it was taught as, and its papers.

A zip of stored members and a manifest that lists each with its sha256. Nothing in it is run, no
member is written outside the folder it is unpacked into, and nothing unlisted is unpacked.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from personae.artifacts.artifact import Artifact
from personae.artifacts.card import SUFFIX, read_card
from personae.artifacts.strength import Strength
from personae.characters.character import Character
from personae.characters.image_files import SUFFIXES as PICTURE_SUFFIXES
from personae.characters.portable import pictures_of
from personae.core.files import replacing, replacing_folder
from personae.errors import ArtifactError, MissingFileError, UsageError
from personae.formats.persona_manifest import (
    FORMAT_VERSION,
    MANIFEST,
    Manifest,
    PackedArtifact,
    PackedFile,
    content_hash,
)

ENDING = ".persona"
LARGEST_MANIFEST = 4 * 2**20
MOST_MEMBERS = 20_000
BLOCK = 2**20
# All that zipfile raises on archives whose offsets, sizes, versions or texts are not what they say.
DAMAGE = (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError, RuntimeError)
LONGEST_NAME = 200
LOCAL_HEADER = 30  # bytes before a member's name, at least (APPNOTE.TXT of the zip format, 4.3.7)
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # no time of day: equal content gives equal files


@dataclass(frozen=True, slots=True)
class Contents:
    """What to pack.

    Attributes:
        artifacts: {file: recommended strength}.
        character: the pictures it was taught from, with captions; None leaves them out.
        previews: drawn pictures.
        licence: terms of use; default: those of the character.
        consent: note on the consent of a living person.
    """

    artifacts: Mapping[Path, str] = field(default_factory=dict)
    character: Character | None = None
    previews: Sequence[Path] = ()
    licence: str = ""
    consent: str = ""


def pack(contents: Contents, path: str | Path) -> Path:
    """Write a `.persona` file and return its path; equal contents give equal bytes.

    Raises:
        UsageError: there is nothing to pack, or a strength is malformed.
        ArtifactError: an artifact is damaged, or they show unlike characters.
    """
    path = with_ending(Path(path))
    if not contents.artifacts and contents.character is None:
        raise UsageError("nothing to pack; give artifacts, a character folder, or both")
    artifacts = [_packed_artifact(file, s) for file, s in contents.artifacts.items()]
    name, class_noun = _who(contents)
    sources: dict[str, Path | bytes] = {
        f"artifacts/{file.name}": file for file in contents.artifacts
    }
    if len(sources) < len(contents.artifacts):
        raise UsageError("two artifacts have the same file name; rename one")
    for number, preview in enumerate(contents.previews, 1):
        sources[f"previews/{number:03d}{preview.suffix.lower()}"] = preview
    if contents.character is not None:
        sources |= dict(pictures_of(contents.character))
    stated = contents.character.licence if contents.character else None
    manifest = Manifest(
        name=name,
        class_noun=class_noun,
        licence=contents.licence or stated or "",
        consent=contents.consent,
        artifacts=artifacts,
        files={member: _packed_file(source) for member, source in sorted(sources.items())},
    ).sealed()
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        _add(archive, MANIFEST, manifest.model_dump_json(indent=2).encode())
        for member, source in sorted(sources.items()):
            _add(archive, member, source)
    return path


def with_ending(path: Path) -> Path:
    """Return `path` with the ending of packed characters."""
    return path if path.suffix == ENDING else path.with_name(path.name + ENDING)


def read_manifest(path: str | Path) -> Manifest:
    """Return what a `.persona` file says of itself, after checking its list of members.

    Raises:
        ArtifactError: missing, damaged, hostile, or of a newer format.
    """
    with _opened(Path(path)) as archive:
        return _checked_manifest(Path(path), archive)


def unpack(path: str | Path, folder: str | Path) -> Manifest:
    """Write the members below `folder`, which must not be there yet, and return the manifest.

    Raises:
        ArtifactError: missing, damaged, hostile, or of a newer format; nothing is written then.
        UsageError: the folder is there already.
    """
    path, folder = Path(path), Path(folder)
    if folder.exists():
        raise UsageError(f"{folder}: is there already; choose another folder")
    with _opened(path) as archive:
        manifest = _checked_manifest(path, archive)
        with replacing_folder(folder) as part:
            for member, listed in manifest.files.items():
                _extract(archive, member, listed, part, path)
            content = manifest.model_dump_json(indent=2)
            (part / MANIFEST).write_text(content, encoding="utf-8")
    return manifest


def _who(contents: Contents) -> tuple[str, str]:
    cards = [read_card(file).character for file in contents.artifacts]
    people = {(card.name, card.class_noun) for card in cards}
    if contents.character is not None:
        people.add((contents.character.name, contents.character.class_noun))
    names = {name for name, _ in people}
    if len(names) > 1:
        raise ArtifactError(f"{', '.join(sorted(names))} are unlike characters; pack one at a time")
    return max(people, key=lambda person: len(person[1]))


def _packed_artifact(file: Path, strength: str) -> PackedArtifact:
    card = Artifact.load(file).card  # all of it is checked, not the card alone
    return PackedArtifact(
        file=f"artifacts/{file.name}",
        technique="+".join(record.name for record in card.techniques),
        strength=str(Strength.parse(strength)),
        base=card.base.source,
        fingerprint=card.base.fingerprint,
        metrics=card.metrics,
    )


def _packed_file(source: Path | bytes) -> PackedFile:
    if isinstance(source, bytes):
        content = source
    else:
        try:
            content = source.read_bytes()
        except OSError as error:
            raise UsageError(f"{source}: cannot be read ({error.strerror})") from None
    return PackedFile(size=len(content), sha256=hashlib.sha256(content).hexdigest())


def _add(archive: zipfile.ZipFile, member: str, source: Path | bytes) -> None:
    info = zipfile.ZipInfo(member, _ZIP_TIME)
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    with archive.open(info, "w", force_zip64=True) as target:
        if isinstance(source, bytes):
            target.write(source)
        else:
            with source.open("rb") as file:
                shutil.copyfileobj(file, target)


def _opened(path: Path) -> zipfile.ZipFile:
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; check the path")
    try:
        return zipfile.ZipFile(path)
    except DAMAGE as error:
        raise ArtifactError(f"{path}: is no whole .persona file ({error})") from None


def _checked_manifest(path: Path, archive: zipfile.ZipFile) -> Manifest:
    """Return the manifest once every member is harmless and listed with its size."""
    members = archive.infolist()
    if len(members) > MOST_MEMBERS:
        raise ArtifactError(f"{path}: has {len(members)} members; at most {MOST_MEMBERS} are read")
    sizes: dict[str, int] = {}
    for member in members:
        reason = _refused(member)
        if reason or member.filename in sizes:
            raise ArtifactError(f"{path}: member '{member.filename}' {reason or 'is there twice'}")
        sizes[member.filename] = member.file_size
    _check_places(path, members)
    if not 0 < sizes.pop(MANIFEST, 0) <= LARGEST_MANIFEST:
        raise ArtifactError(f"{path}: has no {MANIFEST}; is no .persona file")
    content = b"".join(_blocks(archive, MANIFEST, path))
    try:
        values = json.loads(content)
        if isinstance(values, dict) and values.get("format_version", 0) > FORMAT_VERSION:
            raise ArtifactError(f"{path}: is of a newer format; update personae")
        manifest = Manifest.model_validate(values)
    except (ValidationError, ValueError, TypeError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(f"{path}: its {MANIFEST} is damaged ({reason})") from None
    if manifest.format_version > 1 and manifest.content_hash != content_hash(values):
        raise ArtifactError(
            f"{path}: its {MANIFEST} was altered (its content_hash differs); ask for the file again"
        )
    listed = {member: file.size for member, file in manifest.files.items()}
    if listed != sizes:
        odd = sorted(listed.keys() ^ sizes.keys() or listed)[0]
        raise ArtifactError(f"{path}: member '{odd}' is not as {MANIFEST} lists it")
    return manifest


def _check_places(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse members that share bytes, as a small file that unpacks to a large one has them."""
    end, folders = 0, {str(each) for one in members for each in PurePosixPath(one.filename).parents}
    for member in sorted(members, key=lambda each: each.header_offset):
        if member.filename in folders:
            raise ArtifactError(f"{path}: member '{member.filename}' is a file and a folder")
        if member.header_offset < end:
            raise ArtifactError(f"{path}: member '{member.filename}' overlaps another")
        end = member.header_offset + LOCAL_HEADER + member.file_size
    if end > path.stat().st_size:
        raise ArtifactError(f"{path}: its members are larger than the file")


def _refused(member: zipfile.ZipInfo) -> str:
    """Return why a member is refused, or nothing."""
    name = member.filename
    parts = PurePosixPath(name).parts
    kind = stat.S_IFMT(member.external_attr >> 16)
    if len(name) > LONGEST_NAME or not name.isprintable() or str(PurePosixPath(name)) != name:
        return "has an unfit name"
    if name.startswith("/") or "\\" in name or ":" in name or ".." in parts or not parts:
        return "points outside the file"
    if kind not in (0, stat.S_IFREG) or member.is_dir():
        return "is no regular file"
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        return "is compressed; .persona files never are"
    if member.flag_bits & 0x1:
        return "is encrypted"
    known = {SUFFIX, ".json", ".toml", ".txt", *PICTURE_SUFFIXES}
    return "" if PurePosixPath(name).suffix.lower() in known else "is of an unknown kind"


def _extract(
    archive: zipfile.ZipFile, member: str, listed: PackedFile, folder: Path, path: Path
) -> None:
    target = folder.joinpath(*PurePosixPath(member).parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for block in _blocks(archive, member, path):
            digest.update(block)
            file.write(block)
    if digest.hexdigest() != listed.sha256:
        raise ArtifactError(f"{path}: member '{member}' was altered (sha256 differs)")


def _blocks(archive: zipfile.ZipFile, member: str, path: Path) -> Iterator[bytes]:
    """Yield the content of a member; whatever a damaged archive raises becomes one refusal."""
    try:
        with archive.open(member) as source:
            while block := source.read(BLOCK):
                yield block
    except DAMAGE as error:
        raise ArtifactError(f"{path}: member '{member}' is damaged ({error})") from None
