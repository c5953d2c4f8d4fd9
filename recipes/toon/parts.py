"""Files as one archive in parts of limited size, and back; each part is checked when it is read."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

PART_BYTES = 15 * 2**20
LIST = "parts.json"


def split(files: list[Path], root: Path, target: Path) -> list[str]:
    """Write `files`, named from `root` on, to parts in `target`, and a list of the parts; returns their names."""
    target.mkdir(parents=True, exist_ok=True)
    for old in [*target.glob("part-*.bin"), target / LIST]:
        old.unlink(missing_ok=True)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=1) as tar:
        for file in files:
            tar.add(file, arcname=str(file.relative_to(root)))
    content, hashes = archive.getvalue(), {}
    for number, first in enumerate(range(0, len(content), PART_BYTES)):
        part, name = content[first : first + PART_BYTES], f"part-{number:02}.bin"
        (target / name).write_bytes(part)
        hashes[name] = hashlib.sha256(part).hexdigest()
    (target / LIST).write_text(json.dumps(hashes, indent=2) + "\n")
    return [*hashes, LIST]


def join(source: Path, target: Path) -> str:
    """Unpack the parts in `source` or in folders right below it; ends the program where one is missing."""
    found = {file.name: file for file in [*source.glob("*/*"), *source.glob("*")] if file.is_file()}
    if LIST not in found:
        raise SystemExit(f"no {LIST} in {source}")
    archive = io.BytesIO()
    for name, digest in json.loads(found[LIST].read_text()).items():
        content = found[name].read_bytes() if name in found else b""
        if hashlib.sha256(content).hexdigest() != digest:
            raise SystemExit(f"{source}: {name} is {'damaged' if content else 'missing'}")
        archive.write(content)
    archive.seek(0)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    with tarfile.open(fileobj=archive, mode="r:gz") as tar:
        tar.extractall(target, filter="data")
    return f"{target}: " + ", ".join(sorted(path.name for path in target.iterdir()))
