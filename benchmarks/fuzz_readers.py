"""Feeds damaged files to every reader for as long as wanted; needs atheris, which is no dependency.

    pip install atheris
    python benchmarks/fuzz_readers.py -max_total_time=3600

Arguments are those of libFuzzer. A crash, a hang, or an error that is not a refusal ends the run
and leaves the bytes in `crash-...`; the first byte chooses the ending, the rest is the file.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import struct
import sys
import tempfile
import zipfile
from pathlib import Path

import atheris
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

# Imported before anything is instrumented: only the readers are to be watched.
import personae.artifacts.artifact
import personae.models.families.stable_diffusion
from personae.core.devices import HOST
from personae.core.registry import lookup
from personae.core.seeds import generator_for
from personae.errors import PersonaeError
from personae.models.families.stable_diffusion import StableDiffusion
from personae.models.family import Family
from personae.models.toys import tiny_stable_diffusion
from personae.techniques.technique import Technique

with atheris.instrument_imports(include=["personae"]):
    from personae.formats import persona
    from personae.formats.format import export_file, formats, import_file
    from personae.generation import picture_metadata

ENDINGS = (".safetensors", ".pt", ".bin", ".png", ".webp", ".jpg", ".persona", ".artifact")
SLOWEST = 20  # seconds; the largest file libFuzzer makes of the seeds takes well below one


def seeds(base: Family, folder: Path) -> None:
    """Write a good file of each format to begin from."""
    made = folder / "made"
    for technique in ("lora", "textual_inversion", "hypernetwork"):
        kind = lookup(Technique, technique)
        small = {"rank": 1} if technique == "lora" else {}
        config = kind.settings_for(kind.Config.parse(small), "mira", "cat")
        character = {"name": "mira", "class_noun": "cat", "phrase": "mira cat"}
        artifact = personae.artifacts.artifact.Artifact.of(
            [kind(config, base, generator_for(0))], base, character=character
        )
        for name, format_kind in formats().items():
            if technique not in format_kind.techniques or "dreambooth" in format_kind.techniques:
                continue  # whole checkpoints are too large to mutate
            path = export_file(artifact, name, made / name, base)
            if path.is_file():
                choice = bytes([ENDINGS.index(path.suffix)])
                (folder / name).write_bytes(choice + path.read_bytes())
        own = artifact.save(made / f"{technique}.safetensors")
        (folder / technique).write_bytes(bytes([ENDINGS.index(".artifact")]) + own.read_bytes())
        packed = persona.pack(persona.Contents({own: "1"}), made / technique)
        (folder / f"{technique}.persona").write_bytes(
            bytes([ENDINGS.index(".persona")]) + packed.read_bytes()
        )


def crafted(folder: Path) -> None:
    """Write files of the right form with texts that no mutation finds: deep, long, repeated."""
    texts = ["[" * 20_000, '{"seed": ' + "9" * 5000, 'ab:"' * 9999]
    texts += ["a" * 60_000, "a," + " " * 60_000]
    for number, text in enumerate(texts):
        header = json.dumps({"__metadata__": {"personae": text}}).encode()
        picture, packed, words = io.BytesIO(), io.BytesIO(), PngInfo()
        for key in (picture_metadata.A1111, picture_metadata.INVOKEAI, picture_metadata.CHUNK):
            words.add_text(key, text, zip=True)
        Image.new("RGB", (1, 1)).save(picture, format="PNG", pnginfo=words)
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(persona.MANIFEST, text)
            archive.writestr("a.txt", "")
            archive.writestr("a.txt/b.txt", "")
        contents = {
            ".artifact": struct.pack("<Q", len(header)) + header,
            ".jpg": picture.getvalue(),  # read by its content
            ".persona": packed.getvalue(),
        }
        for ending, content in contents.items():
            choice = bytes([ENDINGS.index(ending)])
            (folder / f"crafted-{number}{ending}").write_bytes(choice + content)


def read(path: Path, base: Family, out: Path) -> None:
    """Read a file the way its ending asks for; refusals are what is expected."""
    with contextlib.suppress(PersonaeError):
        match path.suffix:
            case ".persona":
                persona.unpack(path, out)
            case ".artifact":
                personae.artifacts.artifact.Artifact.load(path)
            case ".jpg":
                picture_metadata.read_settings(path)
            case _:
                import_file(path, base)


def main() -> None:
    """Fuzz until libFuzzer stops."""
    pipe = tiny_stable_diffusion(1)
    base = StableDiffusion.from_pipeline(pipe, "tiny", HOST, torch.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = folder / "corpus"
        corpus.mkdir()
        seeds(base, corpus)
        crafted(corpus)

        def one_file(data: bytes) -> None:
            if not data:
                return
            path = folder / f"file{ENDINGS[data[0] % len(ENDINGS)]}"
            path.write_bytes(data[1:])
            out = folder / "out"
            read(path, base, out)
            if out.exists():
                shutil.rmtree(out)

        limits = [f"-timeout={SLOWEST}", "-rss_limit_mb=4096", "-max_len=200000"]
        atheris.Setup([sys.argv[0], *limits, *sys.argv[1:], str(corpus)], one_file)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
