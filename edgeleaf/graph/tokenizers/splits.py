r"""Where the words of byte-level BPE begin: the regular expressions of GPT-2, Qwen and Llama-3, without an engine.

Each of them cuts a text by the classes of three characters before and of one behind a place. Where that does not tell
(newlines, more than three digits), runs of one class do. The classes come from the engine of `tokenizers` itself.

Shapes beside the calls: N units.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from onnx import TensorProto

from edgeleaf.errors import TokenizerNotSupported
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers.characters import CODE_POINTS, matching
from edgeleaf.graph.tokenizers.pages import append_entry, widened
from edgeleaf.graph.tokenizers.spec import Json
from edgeleaf.graph.tokenizers.units import Units

END, LETTER, NUMBER, OTHER, SPACE, WHITE, NEWLINE = range(7)
"""Classes: what is no character; a letter; a digit or the like; any other; U+0020; other white space; CR and LF."""
_BLANK = (SPACE, WHITE, NEWLINE)
_CLASSES = 7
_APOSTROPHE = 1
_LETTERS = "'stmdrevl"
_CONTRACTIONS = ("s", "t", "re", "ve", "m", "ll", "d")
_BY_RUN = 2  # a place of which the neighbours do not tell whether a word begins there


@dataclass(frozen=True)
class Rules:
    """A regular expression, by what sets it apart.

    Attributes:
        digits: so many digits are a word at most; 0: a run of them is one, with a space before it.
        any_case: contractions in upper case count too.
    """

    digits: int
    any_case: bool


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
KNOWN = {
    GPT2: Rules(digits=0, any_case=False),
    _LLAMA3: Rules(digits=3, any_case=True),
    _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"): Rules(digits=1, any_case=True),
}


def read_rules(pre_tokenizer: Json | None) -> tuple[Rules, bool]:
    """Return the rules of a byte-level pre-tokenizer, and whether it puts a space before a text that has none.

    Raises:
        TokenizerNotSupported: it is another one.
    """
    steps = [pre_tokenizer or {}]
    if steps[0].get("type") == "Sequence":
        steps = list(steps[0].get("pretokenizers") or [{}])
    last = steps[-1]
    if last.get("type") != "ByteLevel" or len(steps) > 2:
        kinds = ", ".join(str(step.get("type")) for step in steps)
        raise TokenizerNotSupported(
            f"pre_tokenizer {kinds} is not supported with byte-level BPE: only ByteLevel, or Split and ByteLevel"
        )
    if len(steps) == 1:
        if not last.get("use_regex", True):
            raise TokenizerNotSupported("pre_tokenizer ByteLevel with use_regex: false needs a Split before it")
        return KNOWN[GPT2], bool(last.get("add_prefix_space"))
    split = steps[0]
    expression = (split.get("pattern") or {}).get("Regex") if split.get("type") == "Split" else None
    if expression not in KNOWN or split.get("behavior") != "Isolated" or split.get("invert"):
        raise TokenizerNotSupported(
            f"pre_tokenizer {split.get('type')} with the pattern {str(split.get('pattern'))[:60]} is not supported: "
            "only the regular expressions of GPT-2, Qwen2 and Llama-3, isolated"
        )
    if last.get("use_regex", True) or last.get("add_prefix_space"):
        raise TokenizerNotSupported(
            "pre_tokenizer ByteLevel behind a Split is supported only with use_regex: false and add_prefix_space: false"
        )
    return KNOWN[expression], False


@lru_cache(maxsize=4)
def _entries(rules: Rules) -> np.ndarray:
    """Class + 8 * number of the letter in contractions, int64 by code point."""
    classes = np.full(CODE_POINTS, OTHER, np.int64)
    for expression, number in ((r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", WHITE)):
        classes[matching(expression)] = number
    classes[ord(" ")] = SPACE
    if rules.digits:
        classes[[ord("\r"), ord("\n")]] = NEWLINE
    for number, letter in enumerate(_LETTERS, start=_APOSTROPHE):
        forms = [letter]
        if rules.any_case:
            forms = [chr(code) for code in np.flatnonzero(matching(f"(?i:{letter})"))]
        for form in forms:
            classes[ord(form)] += 8 * number
    return classes


def append_word_starts(graph: GraphBuilder, line: str, units: Units, rules: Rules) -> str:
    """Where words begin in a line of units, int64 [N]; bool [N]. What is no character is a word of its own."""
    entry = append_entry(graph, line, units.by_character(_entries(rules)))  # [N]
    kind = graph.Mod(entry, np.int64(8))
    before = graph.Pad(kind, np.array([1, -1]), np.int64(END))
    code = graph.Add(graph.Mul(before, np.int64(_CLASSES)), kind)  # class before, and here
    earlier = graph.Pad(code, np.array([1, -1]), np.int64(END))
    after = graph.Pad(kind, np.array([-1, 1]), np.int64(END))
    window = graph.Add(graph.Mul(earlier, np.int64(_CLASSES)), kind)  # two before, and here
    window = graph.Add(graph.Mul(window, np.int64(_CLASSES)), after)
    begins = graph.Gather(widened(graph, _window_table(rules)), window, axis=0)  # int64 [N]
    if rules.digits:
        begins = _by_runs(graph, begins, kind, rules)
    return graph.Cast(_append_contractions(graph, begins, entry, before), to=TensorProto.BOOL)


def _window_table(rules: Rules) -> np.ndarray:
    """Whether a word begins, by the classes two before, before, here and after; 0, 1 or ``_BY_RUN``."""
    every = product(range(_CLASSES), repeat=4)
    begins = _begins_with_digits if rules.digits else _begins
    return np.array([begins(rules, *classes) for classes in every], np.int64)


def _begins(rules: Rules, earlier: int, before: int, here: int, after: int) -> int:
    """By the rules of GPT-2."""
    if here == END or before == END:
        return 1
    if here in _BLANK:  # all but the last is one word, and the last one another
        return int(before not in _BLANK or after not in (*_BLANK, END))
    return int(here != before and before != SPACE)


def _begins_with_digits(rules: Rules, earlier: int, before: int, here: int, after: int) -> int:
    """By the rules of Qwen and Llama-3."""
    if here == END or before == END:
        return 1
    if here == LETTER:  # one character before letters belongs to them, unless it goes with others
        return int(before in (NUMBER, NEWLINE) or (before == OTHER and earlier in (OTHER, SPACE)))
    if here == NUMBER:
        return 1 if before != NUMBER or rules.digits == 1 else 0 if earlier != NUMBER else _BY_RUN
    if here == OTHER:
        return int(before not in (OTHER, SPACE))
    if here == NEWLINE:
        return int(before not in (OTHER, *_BLANK))
    if before not in _BLANK or after not in (*_BLANK, END):
        return 1
    return _BY_RUN if before == NEWLINE else 0


def _by_runs(graph: GraphBuilder, begins: str, kind: str, rules: Rules) -> str:
    """The places that neighbours do not tell: digits by their number in the run, white space by what is around it."""
    plain, runs = graph.body("neighbours"), graph.body("runs")
    plain.output(plain.Identity(begins), "begins", TensorProto.INT64, ["N_plain"])
    merged = runs.Gather(_RUN_CLASS, kind, axis=0)
    previous = runs.Pad(merged, np.array([1, -1]), np.int64(-1))
    opens = runs.Not(runs.Equal(merged, previous))
    number = runs.Sub(runs.CumSum(runs.Cast(opens, to=TensorProto.INT64), np.int64(0)), np.int64(1))  # of the run
    places = runs.Range(np.int64(0), runs.Squeeze(runs.Shape(kind)), np.int64(1))
    begun = runs.Compress(places, opens, axis=0)  # [R]
    classes = runs.Compress(merged, opens, axis=0)  # [R]
    two_before = runs.Pad(classes, np.array([2, -2]), np.int64(END))
    behind = runs.Pad(classes, np.array([-1, 1]), np.int64(END))
    # White space behind newlines: a word of its own unless newlines follow; or if other characters took the newlines.
    white = runs.Or(runs.Not(runs.Equal(behind, np.int64(NEWLINE))), runs.Equal(two_before, np.int64(OTHER)))
    within = runs.Sub(places, runs.Gather(begun, number, axis=0))
    digit = runs.Equal(runs.Mod(within, np.int64(max(rules.digits, 1))), np.int64(0))
    is_number = runs.Equal(kind, np.int64(NUMBER))
    white = runs.And(runs.Gather(white, number, axis=0), runs.Not(is_number))
    decided = runs.Cast(runs.Or(runs.And(is_number, digit), white), to=TensorProto.INT64)
    told = runs.Where(runs.Equal(begins, np.int64(_BY_RUN)), decided, begins)
    runs.output(told, "begins", TensorProto.INT64, ["N_runs"])
    most = graph.reduce("ReduceMax", begins, axes=[0], keepdims=0)
    return graph.If(graph.Equal(most, np.int64(_BY_RUN)), then_branch=runs.graph(), else_branch=plain.graph())


_RUN_CLASS = np.array([END, LETTER, NUMBER, OTHER, WHITE, WHITE, NEWLINE])


def _append_contractions(graph: GraphBuilder, begins: str, entry: str, before: str) -> str:
    """Word starts, int64 [N], with those of 's, 're and the like, where a word begins at the apostrophe."""
    letters = graph.Div(entry, np.int64(8))
    found = graph.reduce(
        "ReduceMax", graph.Cast(graph.Equal(letters, np.int64(_APOSTROPHE)), to=TensorProto.INT64), axes=[0], keepdims=0
    )
    none, some = graph.body("plain"), graph.body("contractions")
    none.output(none.Identity(begins), "begins", TensorProto.INT64, ["N_none"])
    base = len(_LETTERS) + 1
    one = some.Pad(letters, np.array([-1, 1]), np.int64(0))
    two = some.Pad(letters, np.array([-2, 2]), np.int64(0))
    code = some.Add(some.Mul(some.Add(some.Mul(letters, np.int64(base)), one), np.int64(base)), two)
    size = some.Gather(widened(some, _contraction_table(base)), code, axis=0)  # 0, 2 or 3
    alone = some.Gather(np.array([k not in (OTHER, SPACE) for k in range(_CLASSES)], np.int64), before, axis=0)
    size = some.Mul(size, alone)
    inside = some.Cast(some.Pad(size, np.array([1, -1]), np.int64(0)), to=TensorProto.BOOL)
    behind = some.Or(
        some.Equal(some.Pad(size, np.array([2, -2]), np.int64(0)), np.int64(2)),
        some.Equal(some.Pad(size, np.array([3, -3]), np.int64(0)), np.int64(3)),
    )
    kept = some.Where(inside, np.int64(0), begins)
    some.output(some.Where(behind, np.int64(1), kept), "begins", TensorProto.INT64, ["N_some"])
    return graph.If(graph.Cast(found, to=TensorProto.BOOL), then_branch=some.graph(), else_branch=none.graph())


def _contraction_table(base: int) -> np.ndarray:
    """Length of the contraction that begins with these letters, by three of them; int64 [base**3]."""
    table = np.zeros((base, base, base), np.int64)
    number = {letter: i for i, letter in enumerate(_LETTERS, start=_APOSTROPHE)}
    for letters in _CONTRACTIONS:
        if len(letters) == 1:
            table[_APOSTROPHE, number[letters]] = 2
        else:
            table[_APOSTROPHE, number[letters[0]], number[letters[1]]] = 3
    return table.ravel()
