import hashlib
import json
import resource
import signal
import stat
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from personae.artifacts.artifact import Artifact
from personae.characters.census import take_census
from personae.characters.character import Character, read_dataset
from personae.characters.image_files import load_picture
from personae.errors import ArtifactError, PersonaeError, UsageError
from personae.formats.persona import MANIFEST, Contents, pack, read_manifest, unpack
from personae.formats.persona_manifest import content_hash
from tiny_world import artifact_of, bases, make, paint


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A character with two artifacts, a preview, its pictures and its papers."""
    base = bases()["tiny-sd1"]
    folder = paint(tmp_path / "pictures", masks=True)
    files = {}
    for name, strength in (("lora", "0.8"), ("textual_inversion", "1")):
        artifact = artifact_of(make(name, base), base)
        files[artifact.save(tmp_path / f"mira.{name}.safetensors")] = strength
    preview = tmp_path / "preview.png"
    Image.new("RGB", (8, 8)).save(preview)
    character = Character.open(folder)
    contents = Contents(files, character, [preview], licence="CC BY 4.0", consent="painted")
    return pack(contents, tmp_path / "mira")


def test_what_is_packed_comes_out_the_same(packed, tmp_path):
    manifest = unpack(packed, tmp_path / "out")
    assert packed.name == "mira.persona"
    assert manifest == read_manifest(packed)
    assert manifest.licence == "CC BY 4.0"
    assert manifest.consent == "painted"
    assert [(a.technique, a.strength) for a in manifest.artifacts] == [
        ("lora", "0.8"),
        ("textual_inversion", "1"),
    ]
    for each in manifest.artifacts:
        out = Artifact.load(tmp_path / "out" / each.file)
        first = Artifact.load(tmp_path / Path(each.file).name)
        assert out.card == first.card
    before, after = (Character.open(tmp_path / p) for p in ("pictures", "out/references"))
    assert after.fingerprint == before.fingerprint
    assert (after.name, after.class_noun) == (before.name, before.class_noun)
    assert len(after.held_out) == len(before.held_out)
    assert (tmp_path / "out" / "previews" / "001.png").is_file()


def test_repeats_weights_class_pictures_and_inverted_masks_come_out_the_same(tmp_path):
    paint(tmp_path / "a")
    paint(tmp_path / "b", 2)
    paint(tmp_path / "c", 3)
    for name in "abc":
        for picture in (tmp_path / name).glob("*.png"):
            tinted = load_picture(picture)
            tinted.putpixel((0, 0), (ord(name), 0, 0))
            tinted.save(picture)
    (tmp_path / "m").mkdir()
    for picture in (tmp_path / "a").glob("*.png"):
        mask = Image.new("L", load_picture(picture).size, 255)
        mask.paste(0, (0, 0, 16, 16))
        mask.save(tmp_path / "m" / picture.name)
    job = tmp_path / "job.yaml"
    sets = [
        {"folder_path": "a", "num_repeats": 10, "mask_path": "m", "invert_mask": True},
        {"folder_path": "b", "loss_multiplier": 0.5},
        {"folder_path": "c", "is_reg": True, "num_repeats": 2},
    ]
    job.write_text(json.dumps({"config": {"process": [{"datasets": sets}]}}))
    before = Character.open(job)
    unpack(pack(Contents({}, before), tmp_path / "mira"), tmp_path / "out")
    after = Character.open(tmp_path / "out" / "references")

    def said(references):
        return sorted(
            (
                r.image().tobytes(),
                r.caption or "",
                r.repeats,
                r.loss_weight,
                b"" if r.mask is None else r.mask_image().tobytes(),
            )
            for r in references
        )

    for part in ("references", "held_out", "prior"):
        assert said(getattr(after, part)) == said(getattr(before, part)), part
    assert {r.repeats for r in after.references} == {10, 1}
    assert len(after.prior) == 3
    assert take_census(tmp_path / "out" / "references", read_dataset(after.folder)).unused == ()


def test_equal_contents_give_equal_bytes(packed, tmp_path):
    again = Contents(
        {tmp_path / "mira.lora.safetensors": "1"}, Character.open(tmp_path / "pictures")
    )
    first = pack(again, tmp_path / "a").read_bytes()
    assert pack(again, tmp_path / "b").read_bytes() == first


def test_a_damaged_artifact_is_not_packed(packed, tmp_path):
    file = tmp_path / "mira.lora.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 0x10]))
    with pytest.raises(ArtifactError, match="sha256 differs"):
        pack(Contents({file: "1"}), tmp_path / "again")
    assert not (tmp_path / "again.persona").exists()


def test_artifacts_of_unlike_characters_are_not_packed_together(packed, tmp_path):
    artifact = Artifact.load(tmp_path / "mira.lora.safetensors")
    other = artifact.card.character.model_copy(update={"name": "juno"})
    card = artifact.card.model_copy(update={"character": other})
    file = Artifact(card, artifact.tensors).save(tmp_path / "juno.safetensors")
    with pytest.raises(ArtifactError, match="unlike characters"):
        pack(Contents({file: "1", tmp_path / "mira.lora.safetensors": "1"}), tmp_path / "x")
    with pytest.raises(UsageError, match="nothing to pack"):
        pack(Contents(), tmp_path / "x")


def rewritten(packed: Path, change) -> Path:
    """The file with its members changed by `change(name, content) -> list of (info, content)`."""
    path = packed.with_name("changed.persona")
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.infolist():
            for info, content in change(member, source.read(member)):
                target.writestr(info, content)
    return path


def resealed(values) -> str:
    """The manifest as whoever forged it would write it: with a hash that fits."""
    return json.dumps(values | {"content_hash": content_hash(values)})


def retold(**said):
    """A change of what the manifest says, in place, that leaves its hash as it was."""

    def change(member, content):
        return [
            (
                member,
                json.dumps(json.loads(content) | said) if member.filename == MANIFEST else content,
            )
        ]

    return change


def added(name: str, **attributes):
    """A change that lists and adds a member called `name`."""

    def change(member, content):
        if member.filename != MANIFEST:
            return [(member, content)]
        values = json.loads(content)
        values["files"][name] = {"size": 3, "sha256": "0" * 64}
        extra = zipfile.ZipInfo(name)
        for key, value in attributes.items():
            setattr(extra, key, value)
        return [(member, resealed(values)), (extra, b"bad")]

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (added("../evil.txt"), "points outside"),
        (added("/evil.txt"), "points outside"),
        (added("a\\..\\evil.txt"), "points outside"),
        (added("C:evil.txt"), "points outside"),
        (added("evil.py"), "unknown kind"),
        (added("link.txt", external_attr=(stat.S_IFLNK | 0o777) << 16), "no regular file"),
        (added("bomb.txt", compress_type=zipfile.ZIP_DEFLATED), "is compressed"),
        (added("fine.txt"), "was altered"),
        (added("a/./b.txt"), "unfit name"),
        (added(f"{MANIFEST}/b.txt"), "is a file and a folder"),
        (lambda m, c: [] if m.filename.startswith("previews") else [(m, c)], "not as persona.json"),
        (lambda m, c: [] if m.filename == MANIFEST else [(m, c)], "has no persona.json"),
        (lambda m, c: [(m, c[:-1] + b"x" if m.filename.endswith(".png") else c)], "was altered"),
        (lambda m, c: [(m, b"{" if m.filename == MANIFEST else c)], "is damaged"),
        (retold(licence="CC0"), "persona.json was altered"),
        (retold(content_hash=""), "persona.json was altered"),
        (lambda m, c: [(m, b'{"format_version": 9}' if m.filename == MANIFEST else c)], "newer"),
    ],
)
def test_a_changed_file_is_refused_and_leaves_nothing(change, reason, packed, tmp_path):
    path = rewritten(packed, change)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ArtifactError, match=reason) as caught:
        unpack(path, tmp_path / "out")
    assert str(path) in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_of_the_format_without_a_hash_is_still_read(packed, tmp_path):
    def as_before(member, content):
        if member.filename == MANIFEST:
            values = json.loads(content) | {"format_version": 1}
            del values["content_hash"]
            content = json.dumps(values)
        return [(member, content)]

    manifest = unpack(rewritten(packed, as_before), tmp_path / "out")
    assert (manifest.licence, manifest.content_hash) == ("CC BY 4.0", "")


def test_members_that_share_bytes_are_refused(packed, tmp_path):
    inner, data = "inner.txt", b"a" * 1000
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(inner), data)
    nested = (tmp_path / "inner.zip").read_bytes()[: 30 + len(inner) + len(data)]
    files = {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in (("outer.txt", nested), (inner, data))
    }
    manifest = json.loads(read_manifest(packed).model_dump_json())
    manifest |= {"files": files, "artifacts": []}
    with zipfile.ZipFile(tmp_path / "evil.persona", "w") as archive:
        archive.writestr(zipfile.ZipInfo(MANIFEST), resealed(manifest))
        archive.writestr(outer := zipfile.ZipInfo("outer.txt"), nested)
        shared = zipfile.ZipInfo(inner)
        shared.file_size = shared.compress_size = len(data)
        shared.CRC = zlib.crc32(data)
        shared.header_offset = outer.header_offset + 30 + len(outer.filename)
        archive.filelist.append(shared)
    with pytest.raises(ArtifactError, match=r"'inner\.txt' overlaps another"):
        unpack(tmp_path / "evil.persona", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_is_full_leaves_no_half_folder(packed, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, room[1]))
    try:
        with pytest.raises(PersonaeError, match=r"out: cannot be written \(File too large\)"):
            unpack(packed, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, room)
        signal.signal(signal.SIGXFSZ, handler)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_is_there_is_not_touched(packed, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="is there already"):
        unpack(packed, tmp_path / "out")


def test_offsets_that_point_before_the_file_are_refused(packed, tmp_path):
    """The directory's offset is too large by more than the file holds, as fuzzing found."""
    content = bytearray(packed.read_bytes())
    end = content.rfind(b"PK\x05\x06")
    content[end + 16 : end + 20] = (2**31).to_bytes(4, "little")
    path = tmp_path / "before.persona"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"before\.persona") as caught:
        unpack(path, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(at=st.floats(0, 1), value=st.integers(0, 255), cut=st.booleans())
def test_no_damage_breaks_the_reader(packed, tmp_path, at, value, cut):
    content = bytearray(packed.read_bytes())
    place = min(int(at * len(content)), len(content) - 1)
    content[place] = value
    path = tmp_path / "damaged.persona"
    path.write_bytes(content[:place] if cut else content)
    out = tmp_path / f"out-{at}-{value}-{cut}"
    if out.exists():
        return
    try:
        unpack(path, out)
    except PersonaeError:
        assert not out.exists()
