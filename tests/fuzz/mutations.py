"""Damages a valid file: flips, cuts or repeats bytes; replaces JSON values; drops, doubles or renames keys."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x",
    "\0", "\ud800", "é" * 300, "../../etc/passwd", "/etc/passwd", "C:\\x", "a" * 5000, [], {}, [[]], [None], {"": None},
    [1, "a", None], {"auto_map": {"AutoModel": "m.M"}}, "os.system",
)  # fmt: skip
ODD_BYTES = (
    b"\xff",
    b"\0",
    b"NaN",
    b"1e999",
    b"{",
    b"[" * 200,
    b"]" * 200,
    b'"',
    b"\xef\xbb\xbf",
    b"9" * 5000,
    b"\n",
    b",",
)


def edited_json(data: bytes, dice: random.Random) -> bytes:
    """Return JSON with one to three of its values, keys or items changed."""
    value = json.loads(data)
    for _ in range(dice.randint(1, 3)):
        places = list(_places(value))
        if not places:
            break
        holder, key = dice.choice(places)
        deed = dice.randrange(5)
        if deed == 0:
            del holder[key]
        elif deed == 1 and isinstance(holder, dict):
            holder[dice.choice(["", "x", "\0", "__class__", str(key).upper(), "../x"])] = holder.pop(key)
        elif deed == 2 and isinstance(holder, list):
            holder *= dice.choice([0, 2, 5])
        elif deed == 3:
            holder[key] = [holder[key]]
        else:
            holder[key] = copy.deepcopy(dice.choice(ODD_VALUES))  # the next edit may change it in place
    try:
        return json.dumps(value).encode()
    except RecursionError:
        return data


def edited_bytes(data: bytes, dice: random.Random) -> bytes:
    """Return bytes with one to eight places changed."""
    found = bytearray(data)
    for _ in range(dice.randint(1, 8)):
        place = dice.randrange(len(found) + 1)
        deed = dice.randrange(5)
        if deed == 0 and place < len(found):
            found[place] ^= 1 << dice.randrange(8)
        elif deed == 1:
            del found[place : place + dice.randint(1, 40)]
        elif deed == 2:
            found[place:place] = dice.choice(ODD_BYTES)
        elif deed == 3:
            found[place:place] = found[place : place + dice.randint(1, 60)]
        elif place < len(found):
            found[place] = dice.randrange(256)
    return bytes(found)


def _places(value: Any) -> Any:
    """Yield every (table or list, key) of a value."""
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        keys = holder.keys() if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        for key in keys:
            yield holder, key
            waiting.append(holder[key])
