"""Makes query-like texts from documentation by templates: what people type to find it."""

from __future__ import annotations

import re
from collections.abc import Iterator


def words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


VERBS = words_of(
    "accept access add adjust aggregate align allocate allow analyze append apply approximate assemble assert assign "
    "attach average bind bound break build cache calculate call cast center change check choose clean clear clip close "
    "collect combine compare compile compose compress compute concatenate configure connect construct consume contain "
    "convert copy count create crop cut decide decode decompose decompress decorate define delete deserialize detect "
    "determine disable discover discretize display distribute divide download draw drop dump duplicate emit enable "
    "encode encrypt ensure enumerate escape estimate evaluate execute expand export expose extend extract factor feed "
    "fetch fill filter find fit flatten flip flush fold force format forward gather generate get give group guess "
    "hash identify implement import increment indent index infer initialize insert inspect install integrate "
    "interpolate intersect invert invoke issue iterate join keep label launch limit list listen load locate lock log "
    "look lower make manage manipulate map mark mask match measure merge minimize modify monitor move multiply "
    "normalize notify obtain open optimize order override pack pad parse partition paste perform permute pick plot "
    "poll pop predict prepare prepend preprocess present prevent print process produce project provide prune pull push "
    "put quantize query quote raise randomize read rebuild receive recover reduce refresh register release reload "
    "remove rename render reorder repeat replace report represent request reset reshape resize resolve restore resume "
    "retrieve return reverse rotate round run sample save scale scan schedule search select send separate serialize "
    "set setup shift show shuffle shut simplify simulate skip smooth solve sort specify split stack standardize start "
    "stop store strip subscribe subtract sum suppress swap switch synchronize take terminate test tokenize track train "
    "transform translate transpose traverse trigger trim truncate turn uncompress undo unescape unpack unquote "
    "unregister unset update upload use validate verify visit wait walk warn watch wrap write yield zip"
)
DANGLING = words_of(
    "actual current given same following specified provided new other corresponding self cls us closed open"
)
STOPWORDS = words_of(
    "a an the of to in on at by for from with and or is are be as that this these those it its into if whether which "
    "when given using all any each will can not do does your our their has have was were been such so only also"
)


# Queries


def summary_queries(summary: str, package: str, number: int) -> Iterator[str]:
    head = re.split(r"[,;:(]| - | -- | e\.g\.| i\.e\.", summary)[0]
    words = head.split()
    clipped = len(head) < len(summary)
    if not (5 if clipped else 3) <= len(words) <= 12 or any(is_code(word) for word in words):
        return
    if words[-1].lower() in STOPWORDS | DANGLING or words[0].lower() in STOPWORDS - {"a", "an", "the"}:
        return
    verb = _base_verb(words[0].lower())
    if verb is None:
        yield from _noun_queries(words, package, number)
        return
    rest = " ".join(words[1:])
    if verb in {"return", "yield"}:
        test = re.match(r"(true|whether)( if| whether| when)? (.+)", rest, re.IGNORECASE)
        verb, rest = ("check", f"if {test[3]}") if test else ("get", rest)
        rest = re.sub(r" (otherwise|or false|and false otherwise|false otherwise|else false)$", "", rest, flags=re.I)
    phrase = _lower_first(f"{verb} {rest}")
    yield _ask(phrase, package, number)
    if number % 2:
        yield _ask(phrase, package, (number >> 16) + 5)


def _ask(phrase: str, package: str, number: int) -> str:
    topic = package.replace("_", " ")
    topic = topic if len(topic) > 2 and number // 10 % 2 else "python"
    forms = (
        phrase,
        f"how to {phrase}",
        f"how do i {phrase}",
        f"How do I {phrase}?",
        _keywords(phrase),
        f"{_keywords(phrase)} {topic}",
        f"{topic} {_keywords(phrase)}",
        f"how to {phrase} in {topic}",
        f"what is the best way to {phrase}",
        _mistyped(f"how to {phrase}", number // 20),
    )
    return forms[number % len(forms)]


def _noun_queries(words: list[str], package: str, number: int) -> Iterator[str]:
    phrase = " ".join(words)
    bare = re.sub(r"^(an?|the|this|these|some|simple|base|abstract) ", "", phrase, flags=re.I)
    bare = re.sub(r"^(class|module|function|method|object|helper|utility) (that|which|to|for) ", "", bare, flags=re.I)
    bare = re.sub(r"^(is|are|module|class|function|method) ", "", bare, flags=re.I)
    if re.search(r"\b(is|are|this|self|should|must|will|you|we|you'll|same as|wrapper|alias|mixin)\b", bare, re.I):
        return
    bare = _lower_first(bare)
    article = bool(re.match(r"(an?|the) ", phrase, re.IGNORECASE))
    topic = package.replace("_", " ")
    forms = (
        bare,
        bare.lower(),
        _keywords(bare),
        f"{topic} {_keywords(bare)}" if len(topic) > 2 else bare,
        f"what is {_lower_first(phrase)}" if article and len(words) <= 7 else bare,
        f"What is {_lower_first(phrase)}?" if article and len(words) <= 7 else f"{bare} example",
    )
    if len(bare.split()) >= 2:
        yield forms[number % len(forms)]


def name_queries(name: str, package: str, number: int) -> Iterator[str]:
    words = re.sub(r"([a-z\d])([A-Z])|([A-Z])([A-Z][a-z])", r"\1\3 \2\4", name).replace("_", " ").lower().split()
    if not 2 <= len(words) <= 5 or any(len(word) < 2 or not word.isalpha() for word in words[:1] + words[-1:]):
        return
    if not all(re.search(r"[aeiouy]", word) or len(word) < 4 for word in words):
        return
    phrase = " ".join(words)
    topic = package.replace("_", " ")
    forms = [f"{topic} {phrase}", f"{phrase} {topic}", f"{phrase} python", f"how to use {name} in {topic}", phrase]
    if words[0] in VERBS and len(words) > 2:
        forms += [f"how to {phrase}", f"how to {phrase} with {topic}", f"{phrase} example"]
    yield forms[number % len(forms)]


def definition_query(passage: str) -> str:
    """Return the query that a definition answers: "A hash table is a structure …" gives "what is a hash table"."""
    match = re.match(r"((?:An?|The) )?([A-Za-z][a-z]+(?: [a-z]+){0,3}) (is|are) (an?|the|used|one|called)\b", passage)
    if not match or match[2].split()[0].lower() in {"this", "there", "it", "that", "these", "which", "he", "they"}:
        return ""
    words = match[2].lower().split()
    if STOPWORDS.intersection(words) or words[-1] in {"here", "there", "default"}:
        return ""
    return f"what {match[3]} {(match[1] or '').lower()}{match[2] if match[1] else _lower_first(match[2])}"


def _base_verb(word: str) -> str | None:
    for base in (word, word.removesuffix("s"), word.removesuffix("es"), word.removesuffix("ies") + "y"):
        if base in VERBS:
            return base
    return None


def _keywords(phrase: str) -> str:
    return " ".join(word for word in phrase.lower().split() if word not in STOPWORDS)


def _lower_first(phrase: str) -> str:
    return phrase if phrase[1:2].isupper() else phrase[:1].lower() + phrase[1:]


def is_code(word: str) -> bool:
    return bool(re.search(r"[_=<>{}\[\]/\\|@#$%^*~\"]|\w\.\w|\w\(", word)) or bool(re.search(r"[a-z][A-Z]", word))


def _mistyped(text: str, number: int) -> str:
    """Swap two neighbouring letters, as happens in fast typing."""
    at = number % max(1, len(text) - 1)
    pair = text[at : at + 2]
    return text[:at] + pair[::-1] + text[at + 2 :] if pair.isalpha() else text
