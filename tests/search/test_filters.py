"""edgeleaf.search.filters: what is read, what it means, and what is no filter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeleaf.errors import InputError
from edgeleaf.search.filters import Comparison, Every, Null, Some, check_columns, leaves, matches, parse_filter
from edgeleaf.values import Value

ROW: dict[str, Value] = {"lang": "en", "year": 2020, "share": 0.5, "open": True, "it's": "o'clock", 'a"b': "x"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("lang = 'en'", True),
        ("LANG = 'en'", False),  # names are as they are
        ("lang != 'en'", False),
        ("lang <> 'de'", True),
        ("lang in ('de', 'en')", True),
        ("lang not in ('de', 'fr')", True),
        ("not lang in ('de', 'fr')", True),
        ("lang < 'f' AND lang >= 'en'", True),
        ("year = 2020.0", True),
        ("year >= 2020 and share < .75", True),
        ("year > 2020 or open = true", True),
        ("(year > 2020 or open = false) and lang = 'en'", False),
        ("year > 2020 or open = false and lang = 'en'", False),
        ("open != TRUE", False),
        ("not (lang = 'de' or year < 2000)", True),
        ("not not lang = 'en'", True),
        ("year < -1e3", False),
        ("\"it's\" = 'o''clock'", True),
        ('"a""b" = \'x\'', True),
        # A column that is not there, or of another kind, is neither equal nor unequal.
        ("city = 'Bonn'", False),
        ("city != 'Bonn'", False),
        ("not city = 'Bonn'", False),
        ("city is null", True),
        ("not city is not null", True),
        ("lang is not null", True),
        ("year = '2020'", False),
        ("year != '2020'", False),
        ("open = 1", False),
        ("lang not in (1, 2)", False),
    ],
)
def test_what_a_filter_means(text: str, found: bool) -> None:
    assert matches(parse_filter(text), ROW) is found


def test_not_goes_inside() -> None:
    assert parse_filter("not (a = 1 and (b < 2 or c is null))") == Some(
        (Comparison("a", "!=", (1,)), Every((Comparison("b", ">=", (2,)), Null("c", True))))
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at its end .*: a column is needed"),
        ("lang", "at its end"),
        ("lang = ", "a value is needed"),
        ("lang == 'en'", "a value is needed"),
        ("lang = en", "a value is needed: 'text' in single quotes"),
        ('lang = "en"', "a value is needed: 'text' in single quotes"),
        ("lang = 'en", "it cannot be read"),
        ("lang = 'en' year = 1", "and, or, or the end is needed"),
        ("lang = null", "write: is null"),
        ("open < true", "have no order"),
        ("lang in ()", "a value is needed"),
        ("lang in ('a', 1)", "values of one kind"),
        ("lang in 'a'", r"\( is needed"),
        ("(lang = 'a'", r"\) is needed"),
        ("lang like 'a%'", "=, !=, <"),
        ("lang = 'a'; drop table x", "it cannot be read"),
        ("lang = 'a' --", "it cannot be read"),
        ("year = 9223372036854775808", "too large"),
        ("year = 1e999", "too large"),
        ("year = " + "9" * 5000, "too large"),
        ("(" * 60 + "a = 1" + ")" * 60, "nested deeper than 50"),
        ("not " * 60 + "a = 1", "nested deeper than 50"),
        ("a in (" + ", ".join("1" * 1 for _ in range(1001)) + ")", "more than 1000 values"),
        ("a" * 20_001, "at most 20000"),
        ("lang = 'a' \0", "it cannot be read"),
    ],
)
def test_what_is_no_filter_is_one_line_with_the_place(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_filter(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_columns_are_checked() -> None:
    columns = {"lang": ("text",), "year": ("number",)}
    check_columns(parse_filter("lang = 'en' and year is null"), columns)
    with pytest.raises(InputError, match=r'the column "lnag"; the store\'s documents have: "lang", "year"'):
        check_columns(parse_filter("year = 1 or lnag = 'en'"), columns)
    with pytest.raises(InputError, match=r"the column \"year\" with the text '2020'; it holds numbers"):
        check_columns(parse_filter("year = '2020'"), columns)
    with pytest.raises(InputError, match="have: none"):
        check_columns(parse_filter("year = 1"), {})


@given(st.text(alphabet="ab=<>!()'\" ,.1eEnotrdislu\n\0é", max_size=60))
def test_any_text_is_a_filter_or_one_line(text: str) -> None:
    try:
        found = parse_filter(text)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert list(leaves(found)) and matches(found, {}) in (True, False)
