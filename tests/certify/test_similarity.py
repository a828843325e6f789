"""edgeleaf.certify.similarity: files of scored pairs, Spearman's correlation and its interval."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from edgeleaf.certify.inputs import EncodedPairs
from edgeleaf.certify.similarity import similarity, spearman
from edgeleaf.errors import TextsError
from edgeleaf.texts.pairs import Pairs, read_pairs

LINES = ["score\tsentence1\tsentence2", *(f"{n % 5}.5\tfirst {n}\tsecond {n}" for n in range(30))]


def written(path: Path, lines: list[str]) -> Path:
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["dev.tsv", "dev.tsv.gz"])
def test_reading(name: str, tmp_path: Path) -> None:
    pairs = read_pairs(written(tmp_path / name, LINES))
    assert pairs.name == f"{tmp_path.name}/dev"
    assert (pairs.scores[:2], pairs.first[1], pairs.second[2]) == ((0.5, 1.5), "first 1", "second 2")
    assert len(pairs.scores) == 30


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    lines = ["sentence2\tgenre\tscore\tsentence1", *(f"b{n}\tnews\t{n}\ta{n}" for n in range(20))]
    pairs = read_pairs(written(tmp_path / "x.tsv", lines))
    assert (pairs.first[3], pairs.second[3], pairs.scores[3]) == ("a3", "b3", 3.0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["score\ta\tb"], "no column 'sentence1' in its first line"),
        ([*LINES, "x\ty\tz"], "line 32: needed a number and two sentences"),
        ([*LINES, "1\ty"], "line 32: needed a number and two sentences"),
        ([*LINES, "nan\ty\tz"], "line 32: needed a number and two sentences"),
        (LINES[:12], "11 pairs; a correlation needs at least 20"),
        ([LINES[0], *["1\ta\tb"] * 30], "30 pairs; a correlation needs at least 20 with different scores"),
    ],
)
def test_bad_files_are_one_line(lines: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(TextsError, match=message):
        read_pairs(written(tmp_path / "x.tsv", lines))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TextsError, match="no such file"):
        read_pairs(tmp_path / "none.tsv")


def test_spearman_by_hand() -> None:
    # Places 1 2 3 4 against 1 3 2 4: 1 - 6 * (0 + 1 + 1 + 0) / (4 * 15)
    found = spearman(np.array([0.1, 0.3, 0.2, 0.9]), [1.0, 2.0, 3.0, 4.0])
    assert found.mean == pytest.approx(0.8)


def test_few_different_scores_and_cosines_that_are_all_alike() -> None:
    found = spearman(np.linspace(0, 1, 20), [1.0] * 18 + [2.0, 3.0])
    assert np.isfinite([found.mean, found.low, found.high]).all()
    assert spearman(np.ones(20), list(map(float, range(20)))).mean == 0.0


def test_the_interval_narrows_with_pairs_and_holds_the_figure() -> None:
    dice = np.random.default_rng(0)
    widths = []
    for count in (50, 800):
        scores = dice.normal(size=count)
        found = spearman(scores + dice.normal(size=count), scores.tolist())
        assert found.low < found.mean < found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2.5


def test_each_side_is_whose_it_says() -> None:
    angles = np.linspace(0.1, 1.4, 25)
    scores = tuple(-float(angle) for angle in angles)  # the wider the angle, the less alike
    first = np.tile([1.0, 0.0], (25, 1))
    right = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    wrong = right[::-1]
    pairs = Pairs("p", ("a",) * 25, ("b",) * 25, scores)
    found = similarity(
        EncodedPairs(pairs, first, right), student=np.concatenate([first, wrong]), fused=np.concatenate([first, wrong])
    )
    assert (found.teacher.mean, found.asymmetric.mean) == (1.0, 1.0)
    assert (found.student.mean, found.fused.mean) == (-1.0, -1.0)
