"""Ways in which a file may be damaged or forged, at random; most of the forged ones have a checksum that fits."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np

Rng = np.random.Generator

HOSTILE: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**53 + 1,
    2**63,
    2**64 - 1,
    10**400,
    -(10**30),
    0.5,
    1e308,
    -0.0,
    float("nan"),
    float("inf"),
    "",
    "a",
    "float32",
    "bfloat16",
    "nan",
    "\ud800",
    "\0",
    "x" * 5000,
    [],
    [[]],
    {},
    {"": {}},
    {"float": "nan"},
    {"float": "1e9"},
    [0] * 3000,
    [[]] * 3000,
    [2**62, 2**62],
    [2**32, 2**32, 2**32],
    [-1, 5],
    [1.5],
    ["W1"],
    [None],
]
FORMULAS = [
    "z" * 4000,
    "(" * 90 + "z" + ")" * 90,
    "(" * 3000 + "z" + ")" * 3000,
    "-" * 3000 + "z",
    "9**9**9**9**9",
    "z**9999999999",
    "exp(exp(exp(exp(z))))",
    "z/0",
    "0/0",
    "log(0)*z",
    "1e999*z",
    "__import__('os')",
    "z.real",
    "lambda: z",
    "[z for z in z]",
    "z; z",
    "z\nz",
    "h",
    "where(z > 0, z, z)",
    "z if z else z",
    "2" * 4000,
    "\0",
    "é",
    "+".join(["z"] * 500),
    "*".join(["(z+1)"] * 300),
    "max(" * 60 + "z" + ", z)" * 60,
]
DTYPES = ["F16", "BF16", "F32", "F64", "I8", "I64", "U8", "U64", "BOOL", "F8_E4M3", "C64", "", "f32", 7, None]


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    return header, data[8 + length :]


def join(header: str, rest: bytes) -> bytes:
    text = header.encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + rest


def description_of(header: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(header["__metadata__"]["bpcore"])
    return found


def forge(header: dict[str, Any], rest: bytes, description: dict[str, Any], rehash: bool = True) -> bytes:
    """Put a description into a file, with a checksum that fits as far as that can be computed.

    An independent spelling of the checksum: it is that of the documentation of the format.
    """
    if rehash:
        try:
            description["sha256"] = checksum(header, rest, description)
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
            pass
    header = copy.deepcopy(header)
    header["__metadata__"]["bpcore"] = json.dumps(description)
    return join(json.dumps(header), rest)


def checksum(header: dict[str, Any], rest: bytes, description: dict[str, Any]) -> str:
    plain = {key: value for key, value in description.items() if key != "sha256"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    digest = hashlib.sha256(text.encode())
    names = [f"{kind}{layer}" for layer in range(1, len(description["sizes"])) for kind in "Wb"]
    names += list(description.get("checkpoint", {}).get("shapes", {}))
    for name in names:
        begin, end = header[name]["data_offsets"]
        digest.update(name.encode() + rest[begin:end])
    return digest.hexdigest()


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values inside a value of JSON."""
    found = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += [(*path, key), *places(inner, (*path, key))]
    return found


def replace_somewhere(value: Any, rng: Rng, choices: list[Any]) -> None:
    """Replace, remove, rename or double something inside a value of JSON."""
    everywhere = places(value)
    path = everywhere[int(rng.integers(len(everywhere)))]
    for key in path[:-1]:
        value = value[key]
    key, how = path[-1], int(rng.integers(10))
    if how == 0:
        del value[key]
    elif how == 1 and isinstance(value, dict):
        value[f"{key}'"] = value.pop(key)
    elif how == 2 and isinstance(value, list):
        value.append(copy.deepcopy(value[key]))
    else:
        value[key] = copy.deepcopy(choices[int(rng.integers(len(choices)))])


# ------------------------------------------------------------------------------------------------ the kinds of damage


def cut(data: bytes, rng: Rng) -> bytes:
    """At every kind of boundary, one byte before and after it, and anywhere."""
    header, rest = split(data)
    start = len(data) - len(rest)
    ends = [entry["data_offsets"][1] + start for name, entry in header.items() if name != "__metadata__"]
    boundaries = [0, 1, 7, 8, 9, start - 1, start, start + 1, *ends, len(data) // 2, int(rng.integers(len(data)))]
    place = boundaries[int(rng.integers(len(boundaries)))] + int(rng.integers(-1, 2))
    if rng.random() < 0.15:
        return data + rng.bytes(int(rng.integers(1, 100)))
    return data[: max(place, 0)]


def flip(data: bytes, rng: Rng) -> bytes:
    damaged = bytearray(data)
    within = len(data) if rng.random() < 0.5 else min(len(data), 600)
    for _ in range(int(rng.integers(1, 17))):
        place = int(rng.integers(within))
        damaged[place] = damaged[place] ^ (1 << int(rng.integers(8))) if rng.random() < 0.5 else int(rng.integers(256))
    return bytes(damaged)


def change_length(data: bytes, rng: Rng) -> bytes:
    true = int.from_bytes(data[:8], "little")
    lengths = [0, 1, 2, true - 8, true - 1, true + 1, true + 8, len(data), 10**8, 2**31, 2**40, 2**63, 2**64 - 1]
    return (lengths[int(rng.integers(len(lengths)))]).to_bytes(8, "little") + data[8:]


def change_header(data: bytes, rng: Rng) -> bytes:
    """Dtypes, shapes, offsets, entries of the header."""
    header, rest = split(data)
    names = [name for name in header if name != "__metadata__"]
    for _ in range(int(rng.integers(1, 4))):
        entry = header.get(names[int(rng.integers(len(names)))], {})
        how = int(rng.integers(5))
        if how == 0 and isinstance(entry, dict):
            entry["dtype"] = DTYPES[int(rng.integers(len(DTYPES)))]
        elif how == 1 and isinstance(entry, dict):
            entry["shape"] = copy.deepcopy(HOSTILE[int(rng.integers(len(HOSTILE)))])
        elif how == 2 and isinstance(entry, dict):
            offsets = [int(rng.integers(0, len(rest) + 9)), int(rng.integers(0, 2**40))]
            entry["data_offsets"] = offsets if rng.random() < 0.5 else [0, len(rest)]
        elif how == 3 and isinstance(entry, dict) and isinstance(entry.get("shape"), list) and entry["shape"]:
            entry["shape"] = [*entry["shape"], 1] if rng.random() < 0.5 else entry["shape"][::-1]
        else:
            replace_somewhere(header, rng, HOSTILE)
    return join(json.dumps(header), rest)


def double_keys(data: bytes, rng: Rng) -> bytes:
    """The same key twice: in the header, in the entry of a tensor, in the description."""
    header, rest = split(data)
    how = int(rng.integers(3))
    if how == 2:
        text = header["__metadata__"]["bpcore"]
        keys = list(json.loads(text))
        key = keys[int(rng.integers(len(keys)))]
        value = json.dumps(HOSTILE[int(rng.integers(len(HOSTILE)))])
        header["__metadata__"]["bpcore"] = f'{{"{key}": {value}, {text[1:]}'
        return join(json.dumps(header), rest)
    name = [name for name in header if how == 1 or name != "__metadata__"][int(rng.integers(len(header) - 1))]
    entry = json.dumps(header[name])
    text = json.dumps(header)
    doubled = f'{{"{name}": {entry}, {text[1:]}'
    return join(doubled if how == 1 else text.replace(entry, '{"dtype": "F64", ' + entry[1:], 1), rest)


def swell(data: bytes, rng: Rng) -> bytes:
    """Deep or huge JSON, in the header or in the description."""
    header, rest = split(data)
    n = int(rng.choice([50, 127, 500, 990, 5000, 100_000]))
    units = ["[", '{"a":', "[]", "{}", "1", '"a"', "1.5", "[[],[]]", "1e400", '"\\ud800"', "9" * 40]
    unit = units[int(rng.integers(len(units)))]
    closing = {"[": "]", '{"a":': "}"}
    big = unit * n + "0" + closing[unit] * n if unit in closing else "[" + ",".join([unit] * n) + "]"
    if rng.random() < 0.3:
        return join(json.dumps(header)[:-1] + f', "big": {big}}}', rest)
    text = header["__metadata__"]["bpcore"]
    place = ['"meta"', '"sizes"', '"activations"', '"more"'][int(rng.integers(4))]
    header["__metadata__"]["bpcore"] = text[:-1] + f", {place}: {big}}}" if rng.random() < 0.8 else big
    return join(json.dumps(header), rest)


def forge_description(data: bytes, rng: Rng) -> bytes:
    header, rest = split(data)
    description = description_of(header)
    for _ in range(int(rng.integers(1, 3))):
        replace_somewhere(description, rng, HOSTILE)
    return forge(header, rest, description, bool(rng.random() < 0.8))


def forge_activation(data: bytes, rng: Rng) -> bytes:
    header, rest = split(data)
    description = description_of(header)
    text = FORMULAS[int(rng.integers(len(FORMULAS)))]
    own = {"name": "own", "formula": text, "derivative": None, "range": ["-inf", "inf"], "domain": ["-inf", "inf"]}
    own |= {"differentiable": bool(rng.random() < 0.5), "rowwise": "", "source": ""}
    if rng.random() < 0.3:
        own["derivative"] = FORMULAS[int(rng.integers(len(FORMULAS)))]
    if rng.random() < 0.4:
        replace_somewhere(own, rng, [*HOSTILE, "softmax", ["-inf", 0], [1, 1], ["nan", "nan"], [3, -3], ["1e999", 1]])
    layer = int(rng.integers(len(description["activations"])))
    description["activations"][layer] = own
    return forge(header, rest, description)


def forge_numbers(data: bytes, rng: Rng) -> bytes:
    """NaN, infinities and denormals in the place of tensors, with a checksum that fits."""
    header, rest = split(data)
    damaged = bytearray(rest)
    patterns = [b"\xff" * 8, b"\0\0\x80\x7f" * 2, b"\0\0\0\0\0\0\xf0\x7f", b"\x01" + b"\0" * 7, b"\x02" * 8]
    for _ in range(int(rng.integers(1, 5))):
        place = 8 * int(rng.integers(max(1, len(damaged) // 8)))
        damaged[place : place + 8] = patterns[int(rng.integers(len(patterns)))][: len(damaged) - place]
    return forge(header, bytes(damaged), description_of(header))


def replace_all(data: bytes, rng: Rng) -> bytes:
    kinds = [b"", rng.bytes(int(rng.integers(1, 2000))), b"PK\x03\x04" + data, b"\x80\x04\x95" + data[:50], data[::-1]]
    return kinds[int(rng.integers(len(kinds)))]


MUTATIONS: list[Callable[[bytes, Rng], bytes]] = [
    cut,
    flip,
    change_length,
    change_header,
    double_keys,
    swell,
    forge_description,
    forge_description,
    forge_activation,
    forge_numbers,
    replace_all,
]
