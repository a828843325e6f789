"""Writes the app's documents: short entries of the Jargon File, which is in the public domain.

    python android_demo/tools/documents.py out/android/documents.jsonl
    edgeleaf index BUNDLE out/android/documents.jsonl -o out/android/index --pca 256

The text comes from Debian's package dict-jargon (version 4.4.7 of the file) by ``apt-get download``, or from a copy of
that package that ``--package`` names. Its hash is checked. Each line is ``{"_id": TERM, "text": "TERM: DEFINITION"}``.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "dict-jargon"
DICTIONARY = "./usr/share/dictd/jargon.dict.dz"
INDEX = "./usr/share/dictd/jargon.index"
SHA256 = "6c8118c277d0b00736d406d4941b77b69932d6ab125f7179ff88fe12939cc19e"
"""Of the dictionary, unpacked."""

DIGITS = {digit: n for n, digit in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}
SHORTEST, LONGEST = 75, 230
"""Characters of a definition; longer ones are cut after a sentence."""
POINTER = re.compile(
    r"(?:\d\. )?(?:Syn|Near(?:ly)? syn|Equivalent|Common(?:ly)? |Variant|Opposite|Another|Yet another|Abbrev)"
)
"""How a definition begins that only points to another entry."""

SENTENCE_END = r"(?<! \d)[.!?][’”)]*(?= [A-Z0-9“‘(])"
TYPOGRAPHY = str.maketrans({"_": "", "\N{SOFT HYPHEN}": ""})

CRUDE = re.compile(
    r"\b(?:fuck|shit|cunt|rape|masturbat|orgas|erect|penis|breast|nazi|gay|sex|whore|tits?\b|wank|moron|cretin)", re.I
)
"""Entries with these are left out of a demo."""
GONE = re.compile(
    r"\b(?:PDP|VAX|DEC|ITS|TECO|TOPS|MIT|SAIL|CMU|IBM|BBN|WPI|Xerox|VMS|MS-DOS|Multics|F(?:ORTRAN|ortran)|Amiga|EMACS|"
    r"U(?:SENET|senet)|newsgroups?|alt\.|comp\.|BBS|FidoNet|Purdue|Berkeley|Stanford|Yale|Cambridge|obs|archaic|rare|"
    r"Unix|mainframes?|LISP|COBOL|BASIC|Zork|modems?|punched|ASCII|VT\d+|teletype|tape|floppy|IRC)\b"
)
"""So are entries about machines and places that few remember."""


def download(folder: Path) -> Path:
    """Fetch the package into ``folder`` and return its path."""
    if not shutil.which("apt-get"):
        sys.exit(f"documents: apt-get is needed to fetch {PACKAGE}; or give a copy of the package with --package FILE")
    done = subprocess.run(
        ["apt-get", "download", "-qq", PACKAGE], cwd=folder, capture_output=True, text=True, check=False
    )
    found = list(folder.glob("*.deb"))
    if done.returncode or not found:
        sys.exit(f"documents: {PACKAGE} cannot be fetched; try apt-get update first: {done.stderr.strip()[-300:]}")
    return found[0]


def unpacked(package: Path) -> tuple[bytes, str]:
    """Return a package's dictionary and its index."""
    try:
        listing = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True)
        with tarfile.open(fileobj=io.BytesIO(listing.stdout)) as archive:
            dictionary = gzip.decompress(member(archive, DICTIONARY))
            index = member(archive, INDEX).decode()
    except (OSError, KeyError, subprocess.CalledProcessError, tarfile.TarError) as error:
        sys.exit(f"documents: {package} is not Debian's package {PACKAGE}: {error}")
    found = hashlib.sha256(dictionary).hexdigest()
    if found != SHA256:
        sys.exit(f"documents: another text of the Jargon File: sha256 {found}, {SHA256} was expected")
    return dictionary, index


def member(archive: tarfile.TarFile, name: str) -> bytes:
    """Return a file of an archive."""
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is not a file")
    return file.read()


def number(digits: str) -> int:
    """Return a number of dictd's index, which is written to the base 64."""
    value = 0
    for digit in digits:
        value = value * 64 + DIGITS[digit]
    return value


def entries(dictionary: bytes, index: str) -> list[str]:
    """Return the raw entries in the order of the dictionary, each once."""
    places = {tuple(map(number, line.split("\t")[1:3])) for line in index.splitlines() if not line.startswith("00-")}
    return [dictionary[start : start + length].decode() for start, length in sorted(places)]


def parsed(entry: str) -> tuple[str, str] | None:
    """Return a term and its definition without pronunciation, origin and references; None if little is left."""
    head, _, rest = entry.strip("\n").partition("\n")
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", rest)]
    body = " ".join(paragraphs[0 if rest.startswith("    ") else 1 :])  # the first holds pronunciation and word class
    body = re.sub(r"\[[^\]]*\]\s*", "", body)
    body = re.sub(r"\s*\(?\b(?:See|Compare|Cf\.)(?: also|,)? [^.]*\.\)?", "", body)
    body = re.sub(r"\{\s*([^}]*)\}", r"\1", body).translate(TYPOGRAPHY).strip()
    if len(body) > LONGEST:
        end = max((found.end() for found in re.finditer(SENTENCE_END, body[:LONGEST])), default=0)
        body = body[:end]
    if " 2. " not in body:
        body = body.removeprefix("1. ")
    term = " ".join(head.split())
    if len(body) < SHORTEST or POINTER.match(body) or CRUDE.search(f"{term} {rest}") or GONE.search(f"{term} {body}"):
        return None
    return term, body


def main() -> None:
    """Write the documents and say how many."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("output", type=Path, help="documents.jsonl")
    asked.add_argument("--package", type=Path, help=f"a copy of Debian's {PACKAGE}; fetched where this is not given")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dictionary, index = unpacked(given.package or download(Path(folder)))
    found = [pair for pair in map(parsed, entries(dictionary, index)) if pair]
    lines = [json.dumps({"_id": term, "text": f"{term}: {body}"}, ensure_ascii=False) for term, body in found]
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.stderr.write(f"{given.output}: {len(lines)} entries of the Jargon File\n")


if __name__ == "__main__":
    main()
