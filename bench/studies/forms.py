"""Makes training texts in forms that are rare among others: claims, titles, questions, posts, code and the like.

    python -m bench.studies.forms DATA -o DIR [--texts 15000]

DATA is a folder with ``texts/``, as EDGELEAF_DATA. Writes a file of each form into DIR, one text a line, for
``--forms`` of :mod:`bench.studies.ablations`. No model writes them: each form is cut or put together from sentences,
searches, and the Python source of the standard library and of installed packages. The same DATA and Python
environment always give the same texts.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import random
import re
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, takewhile
from pathlib import Path

from edgeleaf.files import write_text
from edgeleaf.recipe.sources import FilesSource
from edgeleaf.texts.pieces import EDGES, sentences
from edgeleaf.texts.readers import file_texts

PROSE = (
    "openstax-textbooks",
    "foldoc-computing",
    "gap-wikipedia",
    "wikipedia-2wiki-passages",
    "us-presidential-speeches",
)
QUERIES = "queries.tsv.gz"
PACKAGES = ("numpy", "torch", "transformers", "sentence_transformers", "onnx")
MAX_CHARS = 300
"""As in export/recipes/mpnet.toml."""
CLAIM_WORDS, TITLE_WORDS, KEY_WORDS, DOCSTRING_WORDS = (5, 18), (3, 10), (2, 6), (3, 14)

GLUE = frozenset("of in on for and to with by from at between under the a an".split())
"""Words that may stand inside a title, but at neither end."""
SMALL = GLUE | frozenset(
    "is are was were be been being has have had do does did can could may might must shall should will would not "
    "no nor  or but if then than that this these those which who whom whose what when where why how as so such it "
    "its he she  they we you i his her their our your my me him them us there here also into over about after "
    "before during while  because although however therefore each some any all most more many much other only "
    "very just both one two".split()
)
"""Words that are no key words."""
TEMPLATES = (
    "what is {}",
    "what are the effects of {}?",
    "how does {} work?",
    "Why is {} important?",
    "how to measure {}",
    "examples of {}",
    "What causes {}?",
    "difference between {} and {}",
    "Is {} related to {}?",
    "how is {} used in {}",
)
POSTS = (
    "{statement} {question}",
    "I have read that {statement} But I do not understand it: {question}",
    "{question} I know that {statement}",
    "Hello, {question} {statement} Thanks!",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=15_000, help="of each form")
    given = parser.parse_args()
    prose = [text for name in PROSE for text in texts_of(given.data / "texts" / f"{name}.txt.gz")]
    queries = list(texts_of(given.data / "texts" / QUERIES))
    chance = random.Random(0)
    chance.shuffle(prose)
    chance.shuffle(queries)
    said = [sentence for text in prose for sentence in sentences(text)]
    for name, form in FORMS.items():
        found = list(islice(dict.fromkeys(form(said, queries)), given.texts))
        if len(found) < given.texts:
            raise SystemExit(f"{name}: only {len(found):,} texts were found; lower --texts")
        write_text(given.output / f"{name}.txt", "".join(f"{text}\n" for text in found))
        sys.stdout.write(f"{name}: {' | '.join(found[:4])}\n")


def texts_of(file: Path) -> Iterator[str]:
    return file_texts(FilesSource((str(file.resolve()),), "query"), Path())


def claims(said: list[str], queries: list[str]) -> Iterator[str]:
    """Yield the main clauses of sentences, as statements.

    Example:
        >>> list(claims(["However, the enzyme slows the growth of tumours, which surprised us."], []))
        ['The enzyme slows the growth of tumours.']
    """
    for sentence in said:
        if any(mark in sentence for mark in "?(:<"):
            continue
        clause = re.sub(r"^(?:[A-Z][a-z]+(?: [a-z]+){0,3}), ", "", sentence.strip())
        clause = re.split(r", (?:which|who|while|and|but|so|as|with|where)\b|;| — | - ", clause)[0].rstrip(" .!,")
        words = clause.split()
        if CLAIM_WORDS[0] <= len(words) <= CLAIM_WORDS[1] and words[0].lower() not in {
            "it",
            "this",
            "they",
            "he",
            "she",
        }:
            yield f"{clause[0].upper()}{clause[1:]}."


def titles(said: list[str], queries: list[str]) -> Iterator[str]:
    """Yield noun phrases: the words between an article and the next verb's or pronoun's small word, or a mark.

    Example:
        >>> list(titles(["They were looking at the structure of heated supersonic aircraft when it rained."], []))
        ['structure of heated supersonic aircraft']
    """
    small = SMALL - GLUE
    for sentence in said:
        for part in re.split(r"[^\w\s'-]|\d", sentence):
            words = part.split()
            starts = (place + 1 for place, word in enumerate(words) if word.lower() in {"the", "a", "an"})
            start = next(starts, len(words))
            run = list(takewhile(lambda word: word.lower() not in small, words[start:]))
            while run and (run[-1].lower() in GLUE or run[-1].endswith(("ed", "ing", "ly"))):
                run.pop()
            if TITLE_WORDS[0] <= len(run) <= TITLE_WORDS[1] and GLUE.intersection(run):
                yield " ".join(run)


def questions(said: list[str], queries: list[str]) -> Iterator[str]:
    """Yield questions and how-to searches about noun phrases."""
    phrases = [phrase for phrase in titles(said, queries) if len(phrase.split()) <= 6]
    chance = random.Random(1)
    for phrase, other in zip(phrases[::2], phrases[1::2], strict=False):
        yield chance.choice(TEMPLATES).format(phrase, other)


def posts(said: list[str], queries: list[str]) -> Iterator[str]:
    """Yield what people write on forums: a statement and a question."""
    chance = random.Random(2)
    for statement, question in zip(claims(said, queries), questions(said[::-1], queries), strict=False):
        question = f"{question[0].upper()}{question[1:].rstrip('?')}?"
        post = chance.choice(POSTS).format(statement=statement, question=question)
        yield textwrap.shorten(post, MAX_CHARS, placeholder="")


def code(said: list[str], queries: list[str]) -> Iterator[str]:
    """Yield the first sentences of functions' docstrings as searches, and the functions, in turns."""
    sources = [Path(sysconfig.get_paths()["stdlib"])]
    found = (importlib.util.find_spec(name) for name in PACKAGES)
    sources += [Path(spec.origin).parent for spec in found if spec is not None and spec.origin is not None]
    files = [
        file
        for source in sources
        for file in sorted(source.rglob("*.py"))
        if not {"site-packages", "dist-packages"}.intersection(file.relative_to(source).parts)
    ]
    random.Random(3).shuffle(files)
    for file in files:
        yield from functions(file.read_text(encoding="utf-8", errors="replace"))


def functions(source: str) -> Iterator[str]:
    """Yield a search for each documented function of a Python module, and the function itself, cut to 300 characters.

    Example:
        >>> for text in functions('def area(r):\\n    "Return the area of a circle. Slow."\\n    return 3.14 * r * r'):
        ...     print(text)
        python return the area of a circle
        def area(r): return 3.14 * r * r
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or len(node.body) < 2 or not (doc := ast.get_docstring(node)):
            continue
        search = re.split(r"(?<=[.:])\s|\n\s*\n", doc)[0]
        search = " ".join(search.split()).rstrip(".:")
        if DOCSTRING_WORDS[0] <= len(search.split()) <= DOCSTRING_WORDS[1] and search.isascii():
            node.body, node.decorator_list = node.body[1:], []
            yield f"python {search[0].lower()}{search[1:]}"
            yield " ".join(ast.unparse(node).split())[:MAX_CHARS]


def misspellings(said: list[str], queries: list[str]) -> Iterator[str]:
    """Yield searches with one or two slips of the finger: a letter left out, doubled, swapped or replaced."""
    chance = random.Random(4)
    for query in queries:
        if len(query) < 12:
            continue
        letters = list(query)
        for _ in range(chance.randint(1, 2)):
            place = chance.randrange(1, len(letters) - 1)
            if letters[place].isalpha() and letters[place + 1].isalpha():
                slip = chance.randrange(4)
                if slip == 0:
                    del letters[place]
                elif slip == 1:
                    letters.insert(place, letters[place])
                elif slip == 2:
                    letters[place : place + 2] = reversed(letters[place : place + 2])
                else:
                    letters[place] = chance.choice("abcdefghijklmnopqrstuvwxyz")
        if (slipped := "".join(letters)) != query:
            yield slipped


def key_words(said: list[str], queries: list[str]) -> Iterator[str]:
    """Yield a few content words of each sentence, in their order, in lower case.

    Example:
        >>> list(key_words(["The mean pressure of a gas depends on the temperature."], []))
        ['mean pressure gas depends temperature']
    """
    chance = random.Random(5)
    for sentence in said:
        words = [word.strip(EDGES).lower() for word in sentence.split()]
        words = [word for word in words if len(word) > 2 and word not in SMALL]
        if len(words) >= KEY_WORDS[0] + 2:
            kept = sorted(chance.sample(range(len(words)), min(chance.randint(*KEY_WORDS), len(words))))
            yield " ".join(words[place] for place in kept)


FORMS: dict[str, Callable[[list[str], list[str]], Iterable[str]]] = {
    "claims": claims,
    "titles": titles,
    "questions": questions,
    "posts": posts,
    "code": code,
    "misspellings": misspellings,
    "key words": key_words,
}

if __name__ == "__main__":
    main()
