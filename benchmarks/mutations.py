"""Mutations of files for `fuzz.py`: of bytes, of values in JSON and YAML, of lines, of tensors and of images."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import zipfile
import zlib
from copy import deepcopy
from typing import Any

import numpy as np
import onnx
import torch
import yaml
from PIL import Image

RAW = "\x01raw{}\x01"
"""In place of a value that `json.dumps` cannot write."""
RAW_VALUES = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-0", "1" * 30, "9" * 5000, "1." + "0" * 400, "9223372036854775808"),
    *("[" * 60 + "]" * 60, "[" * 1500 + "]" * 1500, "[" * 200_000, '{"a":' * 1200 + "1" + "}" * 1200, "[1," * 3000),
    *('{"a": 1, "a": 2}', '"\\ud800"', '"' + "x" * 200_000 + '"', "[" + "0," * 100_000 + "0]", "tru", "'a'", ""),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 3, 7, 64, 1000, 65536, 10**6, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63) - 1),
    *(10**11, 10**30, 0.0, -0.5, 0.5, 1e-300, 1e308, "", "a", "x" * 500, "../../outside", "/etc/passwd", "image"),
    *("a.b.c." * 50, "\x1b[31mred\x1b[0m", "a\nb", "é" * 300, "conv", "none", "inf", "1e11", "streets:train=10"),
    *(
        "sqlite:////tmp/outside.db",
        "posixpath:join",
        "os:system:command=touch outside",
        "folder:..",
        [],
        {},
        [[]],
        [None],
    ),
    *([0] * 50, ["a"] * 1000, {"a": 1}, {"op": "conv"}, [1, 2], [1, -1], [10**9, 10**9], {"": None}),
)
OPERATORS = ("Relu", "Loop", "If", "Conv", "Expand", "Tile", "Range", "NonZero", "Reshape", "Resize", "", "x" * 500)
RAW_YAML = (
    *("&a [*a]", "!!python/object/apply:os.system ['touch outside']", "!!int 'a'", "!!timestamp x", "2001-99-99", "<<"),
    *("[" * 3000, "{a: " * 500, "? [a]\n: b", "&a a", "*b", "!!binary '='", "0x" + "f" * 40, "1:1:1:1", ".nan", ".inf"),
    *("|\n x", ">-", "%YAML 9.9", "\t", "- - - - -", "!!set {a}", "{a: 1, a: 2}", "=", "'", "9" * 5000),
)


def mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flip, cut, insert, repeat or blank a few bytes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        if not data:
            return bytes(rng.randbytes(rng.randrange(20)))
        at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 200))
        size = rng.choice((1, 1, 2, 4, 8, 100))
        match rng.randrange(8):
            case 0 | 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                data[at : at + size] = rng.randbytes(size)
            case 3:
                data[at:at] = rng.randbytes(size)
            case 4:
                del data[at : at + size]
            case 5:
                del data[at:]
            case 6:
                data[at:at] = data[at : at + size] * rng.choice((2, 10, 1000))
            case 7:
                data[at : at + size] = bytes([rng.choice((0, 255))]) * size
    return bytes(data)


def mutated_text(text: str, rng: random.Random) -> str:
    """Change numbers and words where they stand."""
    found = list(re.finditer(r"-?\d+(\.\d+)?|\w{2,}", text))
    if not found:
        return text
    for _ in range(rng.choice((1, 1, 2))):
        match = rng.choice(found)
        new = rng.choice(
            ("0", "-1", "1e9", "9" * 19, "9" * 40, "1" * 5000, "NaN", "true", "null", "a", "../..", "{", "]")
        )
        text = text[: match.start()] + new + text[match.end() :]
    return text


def mutated_tree(tree: Any, rng: random.Random, raw: bool = True) -> Any:
    """Change values of a JSON value anywhere in it; what `written` cannot take over is marked if `raw`."""
    tree = deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            return deepcopy(rng.choice(VALUES))
        within, key = rng.choice(places)
        match rng.randrange(10):
            case 0:
                del within[key]
            case 1:
                other_within, other_key = rng.choice(places)
                within[key] = deepcopy(other_within[other_key])
            case 2 if isinstance(within, list):
                times = min(rng.choice((1, 2, 50, 3000)), 300_000 // len(json.dumps(within[key])))
                within += [deepcopy(within[key]) for _ in range(times)]
            case 3 if isinstance(within, dict):
                within[rng.choice(("", "x", "op", "name", "a" * 3000, "__class__", "\x1b"))] = within.pop(key)
            case 4 if raw:
                within[key] = RAW.format(rng.randrange(len(RAW_VALUES)))
            case 5 if isinstance(within[key], (int, float)) and not isinstance(within[key], bool):
                within[key] = rng.choice((-1, 2, 10, 1000, 0.5, 1 / 3)) * within[key]
            case _:
                within[key] = deepcopy(rng.choice(VALUES))
    return tree


def written(tree: Any) -> str:
    """Write a mutated value as JSON."""
    text = json.dumps(tree)
    return re.sub(r'"\\u0001raw(\d+)\\u0001"', lambda match: RAW_VALUES[int(match[1])], text)


def mutated_json(content: bytes, rng: random.Random) -> bytes:
    """Mutate a JSON file, mostly by its values."""
    match rng.randrange(10):
        case 0:
            return mutated_bytes(content, rng)
        case 1:
            return mutated_text(content.decode(), rng).encode()
    return written(mutated_tree(json.loads(content), rng)).encode("utf-8", "surrogatepass")


def mutated_yaml(content: bytes, rng: random.Random) -> bytes:
    """Mutate a YAML file, mostly by its values."""
    text = content.decode()
    match rng.randrange(10):
        case 0:
            return mutated_bytes(content, rng)
        case 1:
            return mutated_text(text, rng).encode()
        case 2 | 3:
            lines = [at.start() for at in re.finditer(r"(?<=: ).+$", text, re.MULTILINE)]
            at = rng.choice(lines)
            return (text[:at] + rng.choice(RAW_YAML) + text[text.index("\n", at) :]).encode()
        case 4:
            depth = rng.choice((3, 8, 30))
            laughs = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
            laughs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, depth)]
            return (text + "\n".join(laughs)).encode()
    return yaml.safe_dump(mutated_tree(yaml.safe_load(content), rng, raw=False), sort_keys=False).encode()


def mutated_journal(content: bytes, rng: random.Random) -> bytes:
    """Mutate one or a few entries, or their order."""
    lines = content.splitlines(keepends=True)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(lines))
        match rng.randrange(9):
            case 0:
                lines[at] = mutated_bytes(lines[at], rng)
            case 1:
                lines[at] = mutated_text(lines[at].decode("utf-8", "replace"), rng).encode()
            case 2 if len(lines) > 1:
                del lines[at]
            case 3:
                lines.insert(rng.randrange(len(lines)), lines[at])
            case _:
                try:
                    entry = mutated_tree(json.loads(lines[at]), rng)
                except (ValueError, RecursionError):
                    continue
                lines[at] = written(entry).encode("utf-8", "surrogatepass") + b"\n"
    return b"".join(lines)


def mutated_lines(content: bytes, rng: random.Random) -> bytes:
    """Mutate a list of FOLDER/NAME lines."""
    lines = content.decode().splitlines()
    strange = (
        "../x",
        "/etc/passwd",
        "a/../../b",
        "..",
        "train/",
        "/",
        "x" * 5000,
        "\x00",
        "a//b",
        "train/..",
        "~",
        "\x1b[2J",
    )
    for _ in range(rng.choice((1, 2))):
        at = rng.randrange(len(lines))
        match rng.randrange(5):
            case 0:
                return mutated_bytes(content, rng)
            case 1:
                lines += lines * rng.choice((1, 50, 3000))
            case _:
                lines[at] = rng.choice(strange)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def mutated_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Mutate the header's values, those of the architecture in it, the header's length, or bytes."""
    (length,) = struct.unpack("<Q", content[:8])
    header, rest = json.loads(content[8 : 8 + length]), content[8 + length :]
    metadata = header["__metadata__"]
    match rng.randrange(10):
        case 0:
            return mutated_bytes(content, rng)
        case 1:
            return (
                struct.pack("<Q", rng.choice((0, 1, length - 1, length + 1, 2**31, 2**40, 2**63, 2**64 - 1)))
                + content[8:]
            )
        case 2 | 3:
            text = written(mutated_tree(header, rng))
        case _:
            architecture = mutated_tree(json.loads(metadata["nasseg.architecture"]), rng)
            text = json.dumps({**header, "__metadata__": {**metadata, "nasseg.architecture": written(architecture)}})
    encoded = text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(encoded)) + encoded + rest


def mutated_checkpoint(content: bytes, rng: random.Random) -> bytes:
    """Mutate a PyTorch checkpoint: bytes, records of the archive, numbers of the pickle, or values of the state."""
    match rng.randrange(6):
        case 0 | 1:
            return mutated_bytes(content, rng)
        case 2 | 3:
            records = {}
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                records = {member.filename: archive.read(member) for member in archive.infolist()}
            name = (
                rng.choice(list(records))
                if rng.random() < 0.3
                else next(name for name in records if "data.pkl" in name)
            )
            records[name] = mutated_bytes(records[name], rng) if rng.random() < 0.8 else b"\0" * 10_000_000
            compression = zipfile.ZIP_DEFLATED if rng.random() < 0.2 else zipfile.ZIP_STORED
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", compression) as archive:
                for member, record in records.items():
                    archive.writestr(member, record)
            return buffer.getvalue()
        case _:
            state = torch.load(io.BytesIO(content), weights_only=True)
            places = list(_places(state))
            for _ in range(rng.choice((1, 2))):
                within, key = rng.choice(places)
                strange = (torch.zeros(3), torch.full((2, 2), torch.nan), torch.zeros(1).expand(2**40), torch.zeros(0))
                within[key] = rng.choice(
                    (*map(deepcopy, VALUES), *strange, torch.sparse_coo_tensor([[0]], [1.0], (2**40,)))
                )
            buffer = io.BytesIO()
            torch.save(state, buffer, _use_new_zipfile_serialization=rng.random() < 0.7)
            return buffer.getvalue()


def mutated_onnx(content: bytes, rng: random.Random) -> bytes:
    """Mutate an exported file: bytes, what it says of itself, or its operators, sizes and weights."""
    kind = rng.randrange(8)
    if kind < 2:
        return mutated_bytes(content, rng)
    model = onnx.load_model_from_string(content)
    graph, (said,) = model.graph, model.metadata_props
    if kind < 4:
        said.value = written(mutated_tree(json.loads(said.value), rng)).encode("utf-8", "replace")
    for _ in range(rng.choice((1, 1, 2)) if kind >= 4 else 0):
        node, weight = rng.choice(graph.node), rng.choice(graph.initializer)
        sizes = (0, 1, -1, 3, 10**6, 2**31, 2**62)
        match rng.randrange(10):
            case 0:
                node.op_type = rng.choice(OPERATORS)
            case 1:
                node.domain = rng.choice(("com.microsoft", "ai.onnx.ml", "../x", "x" * 500))
            case 2 if node.attribute:
                attribute = rng.choice(node.attribute)
                attribute.CopyFrom(
                    onnx.helper.make_attribute(attribute.name, rng.choice((*sizes, 0.5, "a", [2**40] * 4)))
                )
            case 3:
                weight.CopyFrom(onnx.numpy_helper.from_array(np.full(4, rng.choice(sizes)), weight.name))
            case 4:
                weight.dims[:] = [rng.choice(sizes) for _ in range(rng.choice((1, 2, 4)))]
            case 5:
                weight.data_location = onnx.TensorProto.EXTERNAL
                weight.external_data.add(key="location", value=rng.choice(("/etc/passwd", "../outside", "weights")))
            case 6:
                weight.data_type = rng.choice((0, 1, 2, 7, 8, 99))
            case 7:
                names = [name for other in graph.node for name in (*other.input, *other.output)]
                node.input[:] = [rng.choice(names) for _ in node.input]
            case 8:
                value = rng.choice((graph.input[0], graph.output[0]))
                value.type.tensor_type.shape.dim.add(dim_value=rng.choice(sizes))
            case _:
                del graph.node[rng.randrange(len(graph.node))]
    return model.SerializeToString()


def mutated_image(content: bytes, rng: random.Random) -> bytes:
    """Mutate bytes or the size of an image, or save it in another mode or format."""
    match rng.randrange(6):
        case 0 | 1:
            return mutated_bytes(content, rng)
        case 2 | 3:
            return _with_size(content, rng)
        case 4:
            return rng.choice(
                (
                    b"",
                    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
                    b"GIF89a",
                    b"BM",
                    b"P6 9 9 255\n",
                    b"<svg/>",
                )
            )
    with Image.open(io.BytesIO(content)) as image:
        form = rng.choice(("PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "WEBP"))
        modes = {"PNG": ("1", "L", "P", "RGBA", "LA", "I;16", "RGB"), "JPEG": ("L", "CMYK", "RGB")}
        mode = rng.choice(modes.get(form, ("RGB",)))
        size = rng.choice((image.size, (1, 1), (3000, 1), (1, 3000), (image.width + 1, image.height)))
        buffer = io.BytesIO()
        made = image.convert("I").convert("I;16") if mode == "I;16" else image.convert("RGB").convert(mode)
        made.resize(size).save(buffer, form)
    return buffer.getvalue()


def _with_size(content: bytes, rng: random.Random) -> bytes:
    """Let a PNG's or JPEG's header claim another size."""
    sizes = (0, 1, 2, 1000, 9000, 65500, 100_000, 2**31 - 1)
    width, height = rng.choice(sizes), rng.choice(sizes)
    data = bytearray(content)
    if data[:4] == b"\x89PNG":
        struct.pack_into(">II", data, 16, width, height)
        if rng.random() < 0.3:
            data[24], data[25] = rng.choice((1, 2, 4, 8, 16, 255)), rng.choice((0, 2, 3, 4, 6, 9))
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    elif (at := data.find(b"\xff\xc0")) > 0:
        struct.pack_into(">HH", data, at + 5, height % 65536, width % 65536)
    return bytes(data)


def _places(tree: Any) -> Any:
    """Every list or dict in a value with each of its keys."""
    if isinstance(tree, dict):
        for key, value in list(tree.items()):
            yield tree, key
            yield from _places(value)
    elif isinstance(tree, list):
        for key, value in enumerate(tree):
            yield tree, key
            yield from _places(value)
