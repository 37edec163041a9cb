"""AADB's single ratings: ten pictures and scores a row, counted where they yield the score of the lists."""

from __future__ import annotations

import statistics

import pytest

from aes_r1.data.catalog import read_set
from aes_r1.settings import InputError
from tests.data.layouts import put

LISTS = {
    "Train": b"farm1_3_1.jpg 0.4\nfarm1_3_2.jpg 0.625\n",
    "Validation": b"farm1_3_3.jpg 1\n",
    "TestNew": b"farm1_3_4.jpg 0.5\nfarm1_3_99.jpg 0.25\n",
}
# Five workers' scores of the pictures 1 to 4; a fifth to a tenth get 3 from everybody.
SCORES = [(1, 0, 5, 3), (2, 3, 5, 3), (2, 3, 5, 3), (3, 4, 5, 3), (5, 4, 5, 2)]


def ratings(scores, url="http://farm1.staticflickr.com/3/{}.jpg"):
    """Write what workers said, in the published order of columns, in which 10 comes after 1."""
    places = (1, 10, *range(2, 10))
    head = ["HITId", "Description", "WorkerId", *(f"Input.image_url{place}" for place in range(1, 11))]
    rows = [[*head, *(f"Answer.overallScore{place}" for place in places)]]
    for worker, given in enumerate(scores):
        urls = [url.format(place) for place in range(1, 11)]
        by_place = dict(enumerate(given, 1))
        said = [str(by_place.get(place, 3)) for place in places]
        rows.append(["H1", "rate the photo, and select attributes", f"W{worker}", *urls, *said])
    return "\r\n".join(",".join(f'"{cell}"' for cell in row) for row in rows).encode()


def read(root, content=None, name="AllinAll.csv"):
    for split, lines in LISTS.items():
        put(root, f"imgListFiles_label/imgList{split}Regression_score.txt", lines)
    if content is not None:
        put(root, name, content)
    return {label.image.rsplit("_", 1)[1]: label for label in read_set("aadb", root)[0]}


@pytest.mark.parametrize("name", ["AllinAll.csv", "allinAll.csv", "AADB_AllinAll.csv"])
def test_single_ratings_are_counted(name, tmp_path):
    labels = read(tmp_path, ratings(SCORES), name)
    first = labels["1.jpg"]
    assert (first.mos, first.n_raters, first.attributes) == (0.4, 5, {"votes": [1, 2, 1, 0, 1]})
    assert first.mos_std == pytest.approx(statistics.stdev([1, 2, 2, 3, 5]) / 4)
    assert (labels["2.jpg"].n_raters, labels["2.jpg"].attributes) == (4, {"votes": [0, 0, 2, 2, 0]})  # 0 is no opinion
    assert (labels["3.jpg"].n_raters, labels["3.jpg"].mos_std) == (5, 0)
    for name in ("4.jpg", "99.jpg"):  # the ratings of 4 have the mean 0.45, and 99 has none
        assert (labels[name].mos_std, labels[name].n_raters, labels[name].attributes) == (None, None, {})


def test_the_lists_alone_are_enough(tmp_path):
    labels = read(tmp_path)
    assert (labels["1.jpg"].mos, labels["1.jpg"].n_raters, labels["1.jpg"].attributes) == (0.4, None, {})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (ratings([(6,)]), r"AllinAll.csv, line 2: Answer.overallScore1=6 must be a whole number in 0..5"),
        (ratings([(2.5,)]), r"Answer.overallScore1=2.5 must be a whole number"),
        (ratings([("",)]), r"line 2: Answer.overallScore1='' is not a number"),
        (ratings(SCORES, "{}.jpg"), r"line 2: '1.jpg'; http://FARM.HOST/SERVER/FILE was expected"),
        (b"HITId,Answer.overallScore1\nH1,3\n", r"no column Input.image_url1"),
        (ratings([(5, 1, 1, 1)]), r"AllinAll.csv holds the ratings of no score in the lists; take it out"),
    ],
)
def test_other_ratings_are_refused(content, says, tmp_path):
    with pytest.raises(InputError, match=says):
        read(tmp_path, content)
