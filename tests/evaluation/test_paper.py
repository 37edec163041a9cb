"""The authors' numbers are marked as theirs, and shown only for sets that they used."""

from aes_r1.data.catalog import CATALOG
from aes_r1.evaluation.paper import paper_numbers


def test_only_sets_that_were_measured():
    assert paper_numbers({"scenes", "scenes_shifted"}) is None
    result = paper_numbers({"para", "scenes"})
    assert result["systems"]["Aes-R1"] == {"para": {"plcc": 0.7842, "srcc": 0.7666}}
    assert "not measured here" in result["note"]
    assert "2509.21871" in result["source"]


def test_the_headline_average_follows_from_the_cells():
    """Means are recomputed: the paper's .6337 and .6186 are the means of its five sets."""
    sets = ("tad66k", "ava", "flickr_aes", "para", "aadb")
    result = paper_numbers(set(sets))["systems"]["Aes-R1"]
    assert round(sum(result[name]["plcc"] for name in sets) / 5, 4) == 0.6337
    assert round(sum(result[name]["srcc"] for name in sets) / 5, 4) == 0.6186
    assert "para" in CATALOG
