"""Words of languages, from the word lists of the package wordfreq."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from edgeleaf.errors import InputError
from edgeleaf.extras import require

MOST_WORDS = 100_000
"""Words that are taken of each language, the most frequent ones."""


def check_languages(languages: Sequence[str]) -> None:
    """Check the names of languages.

    Raises:
        InputError: a language without a word list; the message names those that have one.
        MissingExtra: wordfreq is not installed.
    """
    require("export --languages")
    from wordfreq import available_languages

    known = sorted(available_languages("best"))
    if unknown := [language for language in languages if language not in known]:
        raise InputError(
            f"no word list of {', '.join(map(repr, unknown))}; there is one of: {', '.join(known)}. "
            "For another language, give texts of it with --vocab-from"
        )


def words_of(languages: Sequence[str]) -> Iterator[str]:
    """Yield the words of languages, small and capitalised, each as a text begins, after a space and after a mark."""
    from wordfreq import iter_wordlist

    for language in languages:
        for word in islice(iter_wordlist(language, wordlist="best"), MOST_WORDS):
            for form in {word, word.capitalize()}:
                yield f"{form} {form}({form}"
