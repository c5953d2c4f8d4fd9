"""Hostile files are read in a process of their own, whose memory is measured.

Every file claims far more than it holds; none may make the reader take more than a few times the
size of the file and the base, nor may any be read as an artifact.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tiny_world

MOST_GROWTH = 96 * 2**20
"""Bytes; the claims below begin at 256 MiB."""

READER = """
import io, json, pickle, struct, sys, time, zipfile, zlib
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

from format_world import base_of, pipeline
from personae.errors import PersonaeError
from personae.formats.format import import_file
from personae.formats.persona import unpack
from personae.generation.picture_metadata import read_settings

folder = Path(sys.argv[1])
GIB = 2**30
LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


def tensors(name, header, body=b""):
    text = json.dumps(header).encode()
    (folder / name).write_bytes(struct.pack("<Q", len(text)) + text + body)


def one(shape, end):
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}


tensors("terabytes.safetensors", {LAYER + ".diff": one([2**20, 2**20], 2**42)})
tensors("overflow.safetensors", {LAYER + ".diff": one([2**40, 2**40], 16)}, b"0" * 16)
(folder / "header.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
(folder / "long_header.safetensors").write_bytes(struct.pack("<Q", 2**33) + b"{}")
tensors("index.safetensors", {f"{i}": one([0], 0) for i in range(20000)})

thin = {"hada_w1_a": (20000, 1), "hada_w1_b": (1, 20000),
        "hada_w2_a": (20000, 1), "hada_w2_b": (1, 20000)}
save_file({f"{LAYER}.{k}": torch.ones(v) for k, v in thin.items()}, folder / "loha.safetensors")
thin = {"lokr_w1": (1, 30000), "lokr_w2": (30000, 1)}
save_file({f"{LAYER}.{k}": torch.ones(v) for k, v in thin.items()}, folder / "lokr.safetensors")
thin = {"lora_down.weight": (1, 30000), "lora_up.weight": (30000, 1)}
save_file({f"{LAYER}.{k}": torch.ones(v) for k, v in thin.items()}, folder / "lora.safetensors")
thin = {"a1.weight": (30000, 1), "a2.weight": (1, 30000),
        "b1.weight": (30000, 1), "b2.weight": (1, 30000)}
save_file({f"{LAYER}.{k}": torch.ones(v) for k, v in thin.items()}, folder / "glora.safetensors")

with zipfile.ZipFile(folder / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
    with archive.open("archive/data.pkl", "w", force_zip64=True) as member:
        for _ in range(256):
            member.write(bytes(2**20))
with zipfile.ZipFile(folder / "bomb.persona", "w", zipfile.ZIP_DEFLATED) as archive:
    with archive.open("persona.json", "w", force_zip64=True) as member:
        for _ in range(256):
            member.write(bytes(2**20))


class Storage:
    def __init__(self, numel):
        self.numel = numel


class Claims(pickle.Pickler):
    def persistent_id(self, each):
        if isinstance(each, Storage):
            return ("storage", torch.FloatStorage, "0", "cpu", each.numel)


class Rebuilt:
    def __init__(self, numel, shape):
        self.parts = (Storage(numel), 0, shape, (0,) * len(shape), False, {})

    def __reduce__(self):
        return (torch._utils._rebuild_tensor_v2, self.parts)


def pickled(name, tensor):
    buffer = io.BytesIO()
    Claims(buffer, protocol=2).dump({"string_to_param": {"*": tensor}})
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("archive/data.pkl", buffer.getvalue())
        archive.writestr("archive/version", b"3")
        archive.writestr("archive/data/0", bytes(64))


pickled("claimed_storage.pt", Rebuilt(2**38, (2**19, 2**19)))
pickled("stretched.pt", Rebuilt(16, (2**20, 24)))  # one value seen 25 million times
(folder / "length.pt").write_bytes(b"\\x80\\x02X" + struct.pack("<I", 2**32 - 16) + b"a.")
(folder / "nested.pt").write_bytes(b"\\x80\\x02" + b"(" * 2**20 + b".")
structure = {24: ({}, {}), "layer_structure": [1, 64, 64, 64, 1]}
torch.save(structure, folder / "wide.pt")
structure = {8192: ({}, {}), "layer_structure": [1, 64, 1]}
torch.save(structure, folder / "wider.pt")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(name, size, *chunks):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    parts = b"".join((b"\\x89PNG\\r\\n\\x1a\\n", head, *chunks, chunk(b"IEND", b"")))
    (folder / name).write_bytes(parts)


squeezed = zlib.compress(bytes(GIB // 4), 1)
png("pixels.png", (12000, 12000), chunk(b"IDAT", zlib.compress(bytes(2**20), 9)))
png("many_pixels.png", (60000, 60000), chunk(b"IDAT", squeezed[:1000]))
png("text.png", (8, 8), chunk(b"zTXt", b"sd-ti-embedding\\0\\0" + squeezed))
png("words.png", (8, 8), chunk(b"zTXt", b"parameters\\0\\0" + squeezed))
del squeezed

(folder / "sharded" / "unet").mkdir(parents=True)
(folder / "sharded" / "model_index.json").write_text("{}")
index = folder / "sharded" / "unet" / "diffusion_pytorch_model.safetensors.index.json"
with index.open("wb") as file:
    file.truncate(GIB)  # a hole: a GiB that takes no room on the disk
with (folder / "hole.pt").open("wb") as file:
    file.truncate(8 * GIB)
with (folder / "hole.safetensors").open("wb") as file:
    file.write(struct.pack("<Q", GIB))
    file.truncate(8 * GIB)

base = base_of(pipeline("sd1"), "sd1")
save_file({LAYER + ".diff": torch.ones(48, 48)}, folder / "good.safetensors")
import_file(folder / "good.safetensors", base)
(folder / "good.safetensors").unlink()


# The high mark of a process never falls unless it is reset, so it is reset before each file.
def peak_now():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024


found = {}
for path in sorted(folder.iterdir()):
    Path("/proc/self/clear_refs").write_text("5")
    before, start = peak_now(), time.process_time()
    try:
        if path.suffix == ".persona":
            unpack(path, folder / "out")
        elif path.name == "words.png":
            read_settings(path)
        else:
            import_file(path, base)
        said = ""
    except PersonaeError as error:
        said = str(error)
    found[path.name] = [peak_now() - before, said, time.process_time() - start]
print(json.dumps(found))
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="this system does not reset the high mark"
)
def test_no_file_makes_a_reader_take_what_it_claims(tmp_path):
    paths = [
        str(Path(__file__).parent),
        str(Path(tiny_world.__file__).parent),
        os.environ.get("PYTHONPATH", ""),
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READER, str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) >= 24
    print({name: round(growth / 2**20, 1) for name, (growth, *_) in found.items()})
    for name, (growth, said, _) in found.items():
        assert growth < MOST_GROWTH, f"{name} took {growth / 2**20:.0f} MiB: {said}"
        assert said, f"{name} was read"
        assert "\n" not in said
        assert name.split(".")[0] in said
    assert not (tmp_path / "out").exists()
