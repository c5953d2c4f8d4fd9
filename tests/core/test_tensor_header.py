"""Headers of safetensors files, beside what the library itself makes of the same bytes."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from personae.core.tensor_header import LARGEST_HEADER, HeaderError, read_tensor_header

FORMATS = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32, torch.uint64,
]  # fmt: skip


def written(path: Path, header: Any, body: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def one(shape: Any = (2,), offsets: Any = (0, 8), format_: Any = "F32") -> dict[str, Any]:
    return {"dtype": format_, "shape": shape, "data_offsets": offsets}


def reason(path: Path) -> str:
    with pytest.raises(HeaderError) as error:
        read_tensor_header(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_it_says_what_the_library_says_and_where_the_values_lie(tmp_path: Path) -> None:
    tensors = {f"{format_}": torch.zeros(3, 5).to(format_) for format_ in FORMATS}
    tensors |= {"empty": torch.zeros(0, 4), "one": torch.tensor(2.5), "b": torch.arange(6.0)}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, {"note": "größer"})
    header = read_tensor_header(path)
    with safe_open(path, "pt") as file:
        assert set(header.tensors) == set(file.keys())
        assert header.metadata == file.metadata() == {"note": "größer"}
    assert header.shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert header.numel == sum(tensor.numel() for tensor in tensors.values())
    place, content = header.tensors["b"], path.read_bytes()
    stored = content[place.start : place.start + place.bytes]
    assert (place.format, struct.unpack("<6f", stored)) == ("F32", (0, 1, 2, 3, 4, 5))


def test_a_file_of_no_tensors_is_whole(tmp_path: Path) -> None:
    header = read_tensor_header(written(tmp_path / "x", {}))
    assert (header.tensors, header.metadata, header.numel) == ({}, {}, 0)


DAMAGED = {
    "no_object": (b"[]", b"", "no JSON object"),
    "text": (b'{"a"', b"", "cannot be read"),
    "not_utf8": (b'{"\xff": 1}', b"", "cannot be read"),
    "utf16": ('{"a":{}}'.encode("utf-16"), b"", "no JSON object"),
    "half_a_character": (b'{"__metadata__":{"a":"\\ud800"}}', b"", "cannot be read"),
    "nested": (b'{"a":' + b"[" * 10**5, b"", "cannot be read"),
    "long_number": (b'{"a":' + b"9" * 5000 + b"}", b"", "cannot be read"),
    "metadata": ({"__metadata__": {"a": 1}}, b"", "no table of texts"),
    "metadata_list": ({"__metadata__": ["a"]}, b"", "no table of texts"),
    "words": ({"a": {"dtype": "F32"}}, b"", "described by other words"),
    "no_words": ({"a": 3}, b"", "described by other words"),
    "format": ({"a": one(format_="F31")}, bytes(8), "number format 'F31'"),
    "format_list": ({"a": one(format_=["F32"])}, bytes(8), "number format"),
    "shape": ({"a": one(shape=2)}, bytes(8), "no list of"),
    "negative": ({"a": one(shape=(-1, -2))}, bytes(8), "no list of"),
    "fraction": ({"a": one(shape=(2.0,))}, bytes(8), "no list of"),
    "truth": ({"a": one(shape=(True, 2))}, bytes(8), "no list of"),
    "places": ({"a": one(offsets=(0, 8, 8))}, bytes(8), "no two numbers"),
    "backwards": ({"a": one(offsets=(8, 0))}, bytes(8), "another length than its shape"),
    "length": ({"a": one(shape=(3,))}, bytes(8), "another length than its shape"),
    "huge": ({"a": one(shape=(2**40, 2**40))}, bytes(8), "another length than its shape"),
    "beyond": ({"a": one((2**20,), (0, 2**22))}, bytes(8), "ends before its last tensor"),
    "overlap": ({"a": one(), "b": one(offsets=(4, 12))}, bytes(12), "overlap"),
    "twice_there": ({"a": one(), "b": one()}, bytes(8), "overlap"),
    "gap": ({"a": one(), "b": one(offsets=(12, 20))}, bytes(20), "gap"),
    "rest": ({"a": one()}, bytes(9), "1 bytes follow"),
    "line_break": ({"a\nb": one(shape=(3,))}, bytes(8), r"'a\nb' has another length"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_header_is_refused_as_by_the_library(case: str, tmp_path: Path) -> None:
    header, body, words = DAMAGED[case]
    path = written(tmp_path / "x.safetensors", header, body)
    assert words in reason(path)
    with pytest.raises(SafetensorError), safe_open(path, "pt"):
        pytest.fail("the library reads it")


def test_a_name_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    header = b'{"a":%b,"a":%b}' % ((json.dumps(one()).encode(),) * 2)
    assert "twice" in reason(written(tmp_path / "x", header, bytes(8)))


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole", {"a": one()}, bytes(8)).read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        assert "ends before" in reason(tmp_path / "cut")


def test_a_header_longer_than_any_known_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "long"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", LARGEST_HEADER + 1))
        file.truncate(2**33)  # a hole that takes no room on the disk
    assert f"has {LARGEST_HEADER + 1} bytes" in reason(path)


def test_a_shape_of_a_hundred_thousand_sizes_is_not_multiplied(tmp_path: Path) -> None:
    assert "at most 64 sizes" in reason(written(tmp_path / "x", {"a": one(shape=[9] * 10**5)}))


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_tensor_header(tmp_path / "none")
