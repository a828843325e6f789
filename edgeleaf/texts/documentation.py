"""Query-like and passage-like English from documentation that every machine already holds.

Docstrings of the standard library and of installed packages, which are parsed but never imported, and pydoc's topics.
Query-like texts are what people would type to find them: "how to split a string into words", "pandas read csv",
"compute convex hull".
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
import sys
import sysconfig
import warnings
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

from edgeleaf.texts.pieces import sentences
from edgeleaf.texts.questions import DANGLING, STOPWORDS, definition_query, name_queries, summary_queries, words_of
from edgeleaf.texts.text import Text

MAX_FILE_BYTES = 400_000
PASSAGE_WORDS = (20, 100)
QUERY_WORDS = (2, 14)
SAME_SHAPE = 3

SKIPPED_FOLDERS = words_of(
    "test tests testing _testing test_utils _vendor vendor vendored _vendored extern external externals third_party "
    "site-packages dist-packages __pycache__ lib2to3 idlelib turtledemo ensurepip encodings pydoc_data edgeleaf "
    "node_modules typeshed conda licenses pip setuptools mypy mypyc torchgen"
)
PACKAGE_NAMES = {"sklearn": "scikit-learn", "PIL": "pillow", "google": "protobuf", "fontTools": "fonttools"}
JUNK = re.compile(
    r"copyright|licen[cs]e|warrant(y|ies)|permission is hereby|"
    r"all rights reserved|in no event|spdx|deprecat|will be removed|"
    r"versionadded|versionchanged|do not edit|auto-?generated|backwards? compatib|todo|fixme|experimental|"
    r"^(from \w+ )?import |see (also|the) (doc|help)|docstring|not implemented|https?:|"
    r"@\w+\.|\.\. |\w\(self|__|->|=>|==|\{\}|\\",
    re.IGNORECASE,
)
SECTIONS = re.compile(
    r"(args?|arguments|parameters?|params|returns?|yields?|raises?|attributes|examples?|see also|references?|methods|"
    r"usage|note|notes|warnings?|warns|inputs?|outputs?|keyword arguments|other parameters|shape|todo|properties|"
    r"keywords|options|fields|variables|authors?|citation|signature|side effects|tips?)\s*:*\s*",
    re.IGNORECASE,
)
PROSE_SECTIONS = re.compile(
    r"(notes?|description|algorithm|details|overview|extended summary|background)\s*:*\s*", re.I
)
MARKUP: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\[([^\]]+)\]\((?:[^)]+)\)"), r"\1"),  # [text](address)
    (re.compile(r":[a-zA-Z:+-]+:`[~!]?([^`<]+?)\s*(?:<[^`]*>)?`"), r"\1"),  # :role:`text <target>`
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{1,2}"), r"\1"),  # `text <address>`_
    (re.compile(r"\s*\[[\w#-]+\]_"), ""),  # [1]_
    (re.compile(r"`+([^`]*)`+_{0,2}"), r"\1"),
    (re.compile(r"(?<!\w)~?\.(?=[A-Za-z]{2})"), ""),  # the remains of a role: ~.path.Path
    (re.compile(r"</?[a-z][\w]*[^<>]*>"), ""),
    (re.compile(r"\*{1,3}(\S(?:[^*\n]*?\S)?)\*{1,3}"), r"\1"),
    (re.compile(r"<?\(?(?:https?|ftp)://\S+"), ""),
    (re.compile(r"\|(\w+)\|"), r"\1"),
    (re.compile(r"\s*::\s*$"), ":"),
    (re.compile(r"\s+"), " "),
    (re.compile(r"\s+([.,;:!?])(?=\s|$)"), r"\1"),
    (re.compile(r"\(\s*\)"), "()"),
)
NOT_LETTERS = re.compile(r"[^A-Za-z\s]")
ODD = re.compile(r"[=<>\[\]{}|\\^~@#$%&*_/+]")
MARKED = re.compile(r"[`*\[<|~]|://|::| [.,;:!?]")
PARAMETER = re.compile(
    r"^(?P<indent> *)\*{0,2}\w+ *(?::(?!:)[^\n]*|\([^\n]*?\)(?: \*optional\*)?:(?P<first>[^\n]*))\n"
    r"(?P<more>(?:(?P=indent) {2,}\S[^\n]*(?:\n|$))+)",
    re.MULTILINE,
)


def documentation_texts(*, queries: int, documents: int) -> Iterator[Text]:
    """Yield distinct texts of both kinds until there are enough of each, or no documentation is left.

    Packages take turns, one file at a time, and a package's files come in a mixed order, so that stopping early still
    gives a bit of everything. The same packages give the same texts in the same order.

    Args:
        queries: stop once this many query-like texts (2 to 14 words) ...
        documents: ... and this many passage-like texts (20 to 100 words) have been found.

    Example:
        >>> first = next(machine_texts(queries=1, documents=1))
        >>> first.kind
        'query'
    """
    seen: set[str] = set()
    shapes: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for text in _candidates():
        key = text.text.casefold()
        shape = text.kind[0] + _shape(text.text)
        if key in seen or shapes[shape] >= SAME_SHAPE:
            continue
        seen.add(key)
        shapes[shape] += 1
        found[text.kind] += 1
        yield text
        if found["query"] >= queries and found["document"] >= documents:
            return


def documentation_sha256() -> str:
    """Return a hash of the files that :func:`documentation_texts` reads, by which a change is noticed.

    This takes a second or two: the files of a virtual environment with torch have 200 MB.
    """
    found = hashlib.sha256(sys.version.encode())  # pydoc's topics are Python's own
    for package, path in _files():
        try:
            source = path.read_bytes()
        except OSError:
            continue
        found.update(f"{package} {path.name} {len(source)}\n".encode("utf-8", "replace") + source)
    return found.hexdigest()


def _candidates() -> Iterator[Text]:
    yield from _pydoc_topics()
    for package, path in _files():
        try:
            source = path.read_bytes()
            if b'"""' not in source:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(source)
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for name, doc in _docstrings(tree):
            yield from _texts_of(package, name, doc)


def _files() -> Iterator[tuple[str, Path]]:
    """Yield Python files of the standard library and of installed packages, the packages taking turns."""
    places = sysconfig.get_paths()
    turns = deque(
        (package, deque(files))
        for root in dict.fromkeys(Path(places[key]) for key in ("stdlib", "purelib", "platlib"))
        for package, files in _packages(root)
    )
    while turns:
        package, files = turns.popleft()
        yield package, files.popleft()
        if files:
            turns.append((package, files))


def _packages(root: Path) -> Iterator[tuple[str, list[Path]]]:
    for entry in sorted(root.iterdir()):
        if entry.name in SKIPPED_FOLDERS or entry.name.startswith(("_", ".")):
            continue
        name = PACKAGE_NAMES.get(entry.stem, entry.stem)
        if entry.suffix == ".py":
            yield name, [entry]
        elif entry.is_dir() and entry.suffix == "":
            files = [path for path in sorted(entry.rglob("*.py")) if _wanted(path, root)]
            if files:
                yield name, sorted(files, key=lambda path: _number(path.relative_to(root).as_posix()))


def _wanted(path: Path, root: Path) -> bool:
    parts = path.relative_to(root).parts
    if SKIPPED_FOLDERS.intersection(parts) or any(part.startswith((".", "_")) for part in parts[:-1]):
        return False
    return not path.name.startswith(("test_", "_test", "conftest")) and path.stat().st_size <= MAX_FILE_BYTES


def _docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield (name, docstring) of the module, its public classes and functions; the module's name is empty."""
    module = ast.get_docstring(tree)
    if module:
        yield "", module
    open_nodes: list[ast.AST] = list(reversed(tree.body))
    while open_nodes:
        node = open_nodes.pop()
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            doc = ast.get_docstring(node)
            if doc and not node.name.startswith("_"):
                yield node.name, doc
            if isinstance(node, ast.ClassDef):
                open_nodes += reversed(node.body)


def _pydoc_topics() -> Iterator[Text]:
    from pydoc_data.topics import topics

    for title, body in sorted(topics.items()):
        if title.isupper():
            continue
        words = re.sub(r"[-_]+", " ", title).lower()
        passages = _passages(list(_paragraphs(inspect.cleandoc(body))))
        yield from (Text(passage, "document") for passage in passages)
        heading = _clean(body.strip().splitlines()[0]).strip(".").lower() if body.strip() else ""
        if heading.startswith("the ") and heading.endswith("statement"):
            yield from (Text(f"{heading} in python", "query"), Text(f"what does {heading} do", "query"))
        elif len(words) > 3:
            yield Text(f"python {words}", "query")
            if 1 < len(heading.split()) < 7 and heading != words and not JUNK.search(heading):
                yield Text(heading, "query")


# Passages


def _texts_of(package: str, name: str, doc: str) -> Iterator[Text]:
    doc = inspect.cleandoc(doc)
    paragraphs = list(_paragraphs(doc))
    passages = [*_passages(paragraphs), *_passages_of_parameters(doc)]
    yield from (Text(passage, "document") for passage in passages)
    summary = sentences(paragraphs[0])[0].rstrip(".:;! ") if paragraphs else ""
    number = _number(f"{package} {name} {summary}")
    queries = list(summary_queries(summary, package, number))
    if name and number % 5 == 0:
        queries += name_queries(name, package, number >> 8)
    queries += (question for passage in passages if (question := definition_query(passage)))
    low, high = QUERY_WORDS
    for query in queries:
        words = query.lower().rstrip("?").split()
        dangling = words[-1] in STOPWORDS | DANGLING or len(set(words) - STOPWORDS - {"python", "how", "what"}) < 2
        if low <= len(words) <= high and not dangling and not JUNK.search(query) and _mostly_letters(query):
            yield Text(query, "query")


def _passages(paragraphs: list[str]) -> Iterator[str]:
    """Join short paragraphs and cut long ones at sentences, to lengths within PASSAGE_WORDS."""
    low, high = PASSAGE_WORDS
    waiting: list[str] = []
    words = 0
    for paragraph in paragraphs:
        for sentence in sentences(paragraph):
            length = len(sentence.split())
            if words + length > high:
                if words >= low:
                    yield " ".join(waiting)
                waiting, words = [], 0
            if length <= high:
                waiting.append(sentence)
                words += length
        if words >= 1.5 * low:
            yield " ".join(waiting)
            waiting, words = [], 0
    if words >= low:
        yield " ".join(waiting)


def _passages_of_parameters(doc: str) -> Iterator[str]:
    """Yield descriptions of parameters in numpy-style and Google-style docstrings, if long enough to stand alone."""
    for match in PARAMETER.finditer(doc):
        lines = [line.strip() for line in (match["first"] or "").splitlines() + match["more"].splitlines()]
        if match["more"].count("\n\n") or any(line.startswith(("-", "*", ">>>", "..", "|", "{")) for line in lines):
            continue
        text = _clean(" ".join(lines))
        if text[:1].isupper() and text.endswith(".") and not JUNK.search(text) and _mostly_letters(text):
            yield from _passages([text])


def _paragraphs(doc: str) -> Iterator[str]:
    """Yield cleaned paragraphs of running prose: no code, tables, field lists or parameter sections."""
    skipping = False
    first = True
    for block in re.split(r"\n[ \t]*\n", doc):
        lines = block.splitlines()
        if not lines or not block.strip():
            continue
        if len(lines) > 1 and re.fullmatch(r"\s*([-=~^*#+])\1{2,}\s*", lines[1]):  # a heading, underlined
            skipping = bool(SECTIONS.fullmatch(lines[0].strip())) and not PROSE_SECTIONS.fullmatch(lines[0].strip())
            lines = lines[2:]
        elif SECTIONS.fullmatch(lines[0].strip()) or re.match(r"\s*#+ ", lines[0]):
            skipping = not PROSE_SECTIONS.fullmatch(lines[0].strip().strip("# "))
            lines = lines[1:]
        elif skipping and not lines[0].startswith((" ", "\t")) and re.match(r"[A-Z][a-z]+ [a-z]+", lines[0]):
            skipping = "---" in doc  # in numpy's style, only the next heading ends a section
        if skipping or not lines or _not_prose(lines):
            continue
        text = _clean(" ".join(line.strip() for line in lines))
        if text.endswith((":", "...")) or not (first or text.endswith((".", "!", "?", ")"))):
            # it introduces code, a formula or a list that is not kept
            text = " ".join(sentences(text)[:-1])
        if len(text.split()) < 3 or not text[0].isalpha() or not (first or text[0].isupper()):
            continue
        if not JUNK.search(text) and _mostly_letters(text):
            first = False
            yield text if text.endswith((".", "!", "?")) else text + "."


def _not_prose(lines: list[str]) -> bool:
    first = lines[0]
    if first.startswith((" ", "\t", ">>>", "...", "..", ":", "@", "#", "$", "|", "+", "* ", "- ", "%", "<", "`")):
        return True
    indented = sum(line.startswith((" ", "\t")) for line in lines[1:])
    marked = sum(bool(re.match(r"\s*([-*+|•]|>>>|\w+\s*:|\d+[.)]|:\w+|@\w+|\w+\s{2,}\S)", line)) for line in lines)
    return indented > 0 or marked > 0 or any(re.search(r"\S {3,}\S", line) for line in lines)


def _clean(text: str) -> str:
    text = " ".join(text.split())
    if MARKED.search(text):
        for pattern, replacement in MARKUP:
            text = pattern.sub(replacement, text)
        text = text.replace("`", "")
    return text.strip()


def _mostly_letters(text: str) -> bool:
    dense = len(text) - text.count(" ")
    return (
        text.isascii() and len(NOT_LETTERS.findall(text)) < 0.15 * dense and len(ODD.findall(text)) <= len(text) // 60
    )


def _shape(text: str) -> str:
    """Return the first words of a text without names and numbers; texts made from one template have these in common."""
    words = ["#" if re.search(r"[A-Z_\d]", word[1:]) else word.lower() for word in text.split()]
    return " ".join(words[:9])


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")
