"""Every published layout, byte for byte: CRLF, marks, leading spaces, trailing columns, no last newline."""

from __future__ import annotations

import json
import statistics

import pytest

from aes_r1.data import published
from aes_r1.data.catalog import CATALOG, read_set
from aes_r1.settings import SETS_WITHOUT_ENDS, DataSettings, InputError
from tests.data.layouts import LAYOUTS, SCALES, put

KONIQ = b"image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set\n"


def rows_of(name, root, **options):
    LAYOUTS[name](root)
    labels, dropped = read_set(name, root, **{"scale": SCALES.get(name), **options})
    return {label.image.rsplit("/", 1)[-1]: label for label in labels}, {one.image: one.fault for one in dropped}


def test_every_set_has_a_layout_that_reads(tmp_path):
    assert set(LAYOUTS) == set(CATALOG)


def test_ava_counts_all_ten_ratings(tmp_path):
    labels, dropped = rows_of("ava", tmp_path)
    first = labels["953619.jpg"]
    votes = [k for k, n in zip(range(1, 11), (0, 1, 5, 17, 38, 36, 15, 6, 5, 1), strict=True) for _ in range(n)]
    assert first.mos == pytest.approx((699 / 124 - 1) / 9)  # mean 5.637
    assert first.mos_std == pytest.approx(statistics.stdev(votes) / 9)
    assert (first.n_raters, first.split) == (124, "train")
    assert labels["953958.jpg"].split == "test"
    assert labels["954184.jpg"].mos == 1  # four times the tenth rating, which a slice 2:11 would lose
    assert dropped == {
        "images/277832.jpg": "no rating",
        "images/310261.jpg": "in generic_test.jpgl, without a row in AVA.txt",
    }


def test_tad66k_reads_merge_alone(tmp_path):
    labels, dropped = rows_of("tad66k", tmp_path)
    assert {name: (label.mos, label.split) for name, label in labels.items()} == {
        "hs_yin@152947873.jpg": (pytest.approx(0.19), "train"),
        "12@N00 3.jpg": (1.0, "train"),
        "thoseunspokenwords5988966769.jpg": (pytest.approx(0.3), "test"),
    }
    assert labels["12@N00 3.jpg"].image == "TAD66K/12@N00 3.jpg"
    assert dropped == {}


def test_flickr_aes_starts_at_its_floor(tmp_path):
    labels, dropped = rows_of("flickr_aes", tmp_path)
    low, high, middle = (labels[f"farm1_27_{k}.jpg"] for k in (1, 2, 3))
    assert (low.mos, high.mos, middle.mos) == (0, 1, pytest.approx((0.627154296566 - 0.2) / 0.8))
    assert (low.mos_std, low.n_raters) == (pytest.approx(statistics.stdev([1, 3]) / 4), 2)
    assert (high.mos_std, high.n_raters, middle.n_raters) == (None, 1, None)
    assert dropped == {}


def test_para(tmp_path):
    labels, _ = rows_of("para", tmp_path)
    train, test = labels["iaa_Train.jpg"], labels["iaa_Test.jpg"]
    assert (train.image, train.split, test.split) == ("imgs/session3/iaa_Train.jpg", "train", "test")
    assert (train.mos, train.mos_std, test.mos) == (pytest.approx(0.8), pytest.approx(0.2), 0.0)
    assert (train.n_raters, train.attributes) == (5, {"semantic": "plant", "votes": [0, 0, 1, 0, 0, 0, 4, 0, 0]})


def test_aadb_validation_loses_what_is_in_test(tmp_path):
    labels, dropped = rows_of("aadb", tmp_path)
    assert {name: label.split for name, label in labels.items()} == {
        "farm1_a_b.jpg": "train",
        "farm1_c d.jpg": "train",
        "farm1_v.jpg": "validation",
        "farm1_t.jpg": "test",
        "farm1_u.jpg": "test",
    }
    assert labels["farm1_t.jpg"].image == "AADB_newtest_originalSize/farm1_t.jpg"
    assert labels["farm1_c d.jpg"].mos == 0.7
    assert dropped == {"AADB_newtest_originalSize/farm1_t.jpg": "also in test"}


def test_koniq_reads_the_ratings_not_the_z_scores(tmp_path):
    labels, _ = rows_of("koniq", tmp_path)
    first = labels["10004473376.jpg"]
    mean = 3 * 0.238095238095 + 4 * 0.695238095238 + 5 * 0.0666666666667
    assert first.mos == pytest.approx((mean - 1) / 4)
    assert (first.mos_std, first.n_raters) == (pytest.approx(0.527277894494 / 4), 105)
    assert first.attributes["votes"] == [0, 0, 25, 73, 7]
    assert labels["10007903636.jpg"].mos == 0
    assert {label.split for label in labels.values()} == {"train", "validation", "test"}


def test_spaq_is_a_workbook(tmp_path):
    labels, _ = rows_of("spaq", tmp_path)
    assert {name: label.mos for name, label in labels.items()} == {f"{i:05d}.jpg": i / 8 for i in range(1, 9)}
    assert sorted(label.split for label in labels.values()) == ["test"] * 2 + ["train"] * 6
    (tmp_path / "Annotations" / "MOS and Image attribute scores.xlsx").write_bytes(b"PK no zip")
    with pytest.raises(InputError, match=r"not an \.xlsx workbook"):
        published.spaq_labels(tmp_path)


def test_agiqa3k(tmp_path):
    labels, _ = rows_of("agiqa3k", tmp_path)
    assert labels["AttnGAN_normal_000.jpg"].mos == pytest.approx(0.965602553 / 5)
    assert labels["AttnGAN_normal_000.jpg"].mos_std == pytest.approx(0.232701012 / 5)
    assert (labels["sd_1.jpg"].mos, labels["sd_1.jpg"].attributes["prompt"]) == (1, "a cat, asleep")


def test_names_of_any_line_end_and_alphabet(tmp_path):
    put(
        tmp_path,
        "labels.jsonl",
        (json.dumps({"image": "a\u2028b\x85ü.jpg", "mos": 0.5}, ensure_ascii=False) + "\r\n").encode(),
    )
    labels, _ = read_set("folder", tmp_path)
    assert labels[0].image == "a\u2028b\x85ü.jpg"


@pytest.mark.parametrize(
    ("name", "file", "content", "says"),
    [
        ("ava", "AVA.txt", b"1 953619 0 1\n", "line 1: 4 columns"),
        ("ava", "AVA.txt", b"1 953619 0 1 x 17 38 36 15 6 5 1 1 22 1396\n", "count='x' is not a number"),
        ("tad66k", "merge/test.csv", b"picture,score\r\na.jpg,1\r\n", "no column image"),
        ("tad66k", "merge/test.csv", b"image,score\r\na.jpg\r\n", "line 2: score="),
        ("tad66k", "merge/test.csv", b"", "is empty"),
        ("tad66k", "merge/train.csv", b"image,score\r\na.jpg,\r\n", "line 2: score=''"),
        ("flickr_aes", "FLICKR-AES_image_score.txt", b"a.jpg\n", "line 1"),
        ("aadb", "imgListFiles_label/imgListTrainRegression_score.txt", b"a.jpg high\n", "score='high'"),
        ("koniq", "koniq10k_distributions_sets.csv", KONIQ + b"a,0,0,1,0,0,9,5,1,dev\n", "set='dev'"),
        ("flickr_aes", "FLICKR-AES_image_score.txt", b" \r\n", "is empty"),
        ("avt_ai", "avtai224.csv", b"image_id,mos01\na.jpg,0.5\n", "no column mos_std01"),
        ("avt_ai", "avtai224.csv", b"image_id,mos01,mos_std01\na.jpg,0.5,0.1\n", "no column source"),
        ("sophoappeal", "labels.csv", b"file,source,crowd_mos\na.jpg,own,3\n", "no column crowd_count_1"),
        ("para", "annotation/PARA-GiaaTest.csv", b"\xff\xfe\x00", "not utf-16"),
        ("artimuse10k", "ArtiMuse-10K.json", b'[{"image": "a.jpg", "score": 4}]', "no column gt_score"),
        ("artimuse10k", "ArtiMuse-10K.json", b'[{"image": "a.jpg", "gt_score": "high"}]', "gt_score='high' is not"),
        ("artimuse10k", "ArtiMuse-10K.json", b'[{"image": 7, "gt_score": 4}]', "entry 1: image=7 is no name"),
        ("artimuse10k", "ArtiMuse-10K.json", b'[{"image": null, "gt_score": 4}]', "entry 1: no image"),
        ("artimuse10k", "ArtiMuse-10K.json", b'["a.jpg"]', "entry 1: .* is no object"),
        ("pipal", "Train_Label/A0001.txt", b"A0001_00_00.bmp 1500", "line 1: .*a comma and its rating were expected"),
        ("pipal", "Train_Label/A0001.txt", b"A0001_00_00.bmp,A0001.bmp,1500", "a comma and its rating were expected"),
        ("pipal", "Train_Label/A0001.txt", b"A0001_00_00.bmp,high", "line 1: rating='high' is not a number"),
    ],
)  # fmt: skip
def test_a_broken_file_is_named_with_its_row(name, file, content, says, tmp_path):
    LAYOUTS[name](tmp_path)
    put(tmp_path, file, content)
    with pytest.raises(InputError, match=says) as caught:
        read_set(name, tmp_path, scale=SCALES.get(name))
    assert file.rsplit("/", 1)[-1] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "ava",
        "tad66k",
        "flickr_aes",
        "para",
        "aadb",
        "koniq",
        "spaq",
        "agiqa3k",
        "avt_ai",
        "sophoappeal",
        "eva",
        "baid",
        "kadid",
        "artimuse10k",
        "pipal",
        "folder",
    ],
)
def test_a_wrong_root_is_named(name, tmp_path):
    with pytest.raises(InputError, match=r"data\.root"):
        read_set(name, tmp_path, scale=SCALES.get(name))


ONE_ROW = "give the picture one row, with their mean"


@pytest.mark.parametrize(
    ("rows", "faults"),
    [
        ("a,0.5,train\na,0.5,train\n", ["the same row again"]),
        ("a,0.5,train\na,0.6,train\n", [f"rows of different opinion: 0.5, 0.6 in 2 rows; {ONE_ROW}"] * 2),
        ("a,0.5,train\na,0.5,test\n", ["also in test"]),
        ("a,0.5,validation\na,0.7,test\na,0.4,train\n", ["also in test"] * 2),
    ],
)
def test_a_picture_stands_once(rows, faults, tmp_path):
    put(tmp_path, "labels.csv", f"image,mos,split\nz,0.1,train\n{rows}".encode())
    labels, dropped = read_set("folder", tmp_path)
    assert [label.fault for label in dropped] == faults
    assert len({label.image for label in labels}) == len(labels)


@pytest.mark.parametrize(
    ("columns", "rows", "fault"),
    [
        ("mos_std", ["0.1", "0.3"], "mos_std 0.1, 0.3"),
        ("n_raters", ["10", "20"], "n_raters 10, 20"),
        ("count_0,count_1", ["1,1", "3,3"], "mos_std 0.5477, 0.7071"),
        ("count_0,count_0.5,count_1", ["0,4,0", "1,0,1"], "mos_std 0, 0.7071"),
        ("mos_std", ["0.1", ""], None),  # one row says nothing of the spread
        ("note", ["dusk", "dawn"], None),
    ],
)
def test_rows_of_one_opinion_may_not_differ_in_its_spread_or_raters(columns, rows, fault, tmp_path):
    lines = "".join(f"a,0.5,{row}\n" for row in rows)
    put(tmp_path, "labels.csv", f"image,mos,{columns}\n{lines}".encode())
    labels, dropped = read_set("folder", tmp_path)
    if fault is None:
        assert (len(labels), [label.fault for label in dropped]) == (1, ["the same row again"])
    else:
        assert labels == []
        assert [label.fault for label in dropped] == [f"rows of different opinion: {fault} in 2 rows; {ONE_ROW}"] * 2


def test_eva_counts_single_votes_and_rates_dimensions(tmp_path):
    labels, dropped = rows_of("eva", tmp_path, attributes={"composition": "composition", "color": "visual"})
    first, other = labels["71.jpg"], labels["106.jpg"]
    assert (first.image, first.mos, first.n_raters) == ("images/EVA_together/71.jpg", 0.75, 2)
    assert first.mos_std == pytest.approx(statistics.stdev([6, 9]) / 10)
    assert first.attributes["votes"] == [0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0]
    assert first.attributes["ratings"] == {"composition": pytest.approx(2.5 / 3), "color": pytest.approx(2 / 3)}
    assert (other.mos, other.attributes["ratings"]) == (0, {"color": 0})  # nobody rated its composition
    assert dropped == {}
    put(tmp_path, "data/votes_filtered.csv", b'image_id=user_id=score\n"71"="E1"="6"\n\n72=E1\n')
    with pytest.raises(InputError, match=r"line 4: score='' is not a number"):
        published.eva_labels(tmp_path)
    put(tmp_path, "data/votes_filtered.csv", b"image_id=user_id=score\n71=E1=6.5\n")
    with pytest.raises(InputError, match=r"line 2: score=6.5 must be a whole number in 0..10"):
        published.eva_labels(tmp_path)


def test_baid(tmp_path):
    labels, dropped = rows_of("baid", tmp_path)
    assert {name: (one.mos, one.split) for name, one in labels.items()} == {
        "24429.jpg": (pytest.approx(0.4034603), "train"),
        "55406.jpg": (pytest.approx(0.3672703), "train"),
        "241705.jpg": (pytest.approx(0.9999043), "validation"),
        "12938.jpg": (pytest.approx(0.51598), "test"),
    }
    assert dropped == {}


def test_kadid_keeps_all_versions_of_a_picture_in_one_split(tmp_path):
    labels, _ = rows_of("kadid", tmp_path)
    first = labels["I01_01_01.png"]
    assert (first.mos, first.n_raters) == (pytest.approx(3.57 / 4), 30)
    assert first.mos_std == pytest.approx(statistics.stdev([5] * 17 + [4] * 13) / 4, abs=2e-4)  # var is rounded
    assert first.attributes["reference"] == "images/I01.png"
    assert labels["I02_01_01.png"].mos > labels["I02_01_05.png"].mos  # a large number is a good picture
    splits = {}
    for label in labels.values():
        splits.setdefault(label.attributes["reference"], set()).add(label.split)
    assert all(len(found) == 1 for found in splits.values())
    assert sorted(next(iter(found)) for found in splits.values()) == ["test", *["train"] * 4]


def test_artimuse10k_is_a_list_of_test_pictures(tmp_path):
    labels, dropped = rows_of("artimuse10k", tmp_path)
    assert {name: (one.mos, one.split) for name, one in labels.items()} == {
        "0_263.jpg": (pytest.approx(0.408), "test"),
        "0_1150.jpg": (pytest.approx(0.43), "test"),
        "15_9.jpg": (pytest.approx(0.978), "test"),
        "4_1.jpg": (0.1, "test"),
    }
    assert labels["0_263.jpg"].image == "image/0_263.jpg"
    assert dropped == {}


@pytest.mark.parametrize("parent", ["", "Distortion"])
def test_pipal_finds_its_pictures_and_keeps_versions_together(parent, tmp_path):
    LAYOUTS["pipal"](tmp_path)
    if parent:
        (tmp_path / parent).mkdir()
        for part in range(1, 5):
            (tmp_path / f"Distortion_{part}").rename(tmp_path / parent / f"Distortion_{part}")
    labels, dropped = read_set("pipal", tmp_path, scale=[900, 1900])
    by_name = {label.image.rsplit("/", 1)[-1]: label for label in labels}
    assert by_name["A0002_00_00.bmp"].mos == pytest.approx((1466.4372 - 900) / 1000)
    assert by_name["A0001_05_03.bmp"].mos == 0.95
    assert by_name["A0003_00_00.bmp"].attributes == {"reference": "Train_Ref/A0003.bmp"}
    assert all((tmp_path / label.image).is_file() for label in labels)
    splits = {}
    for label in labels:
        splits.setdefault(label.attributes["reference"], set()).add(label.split)
    assert sorted(next(iter(found)) for found in splits.values()) == ["test", *["train"] * 4]
    assert all(len(found) == 1 for found in splits.values())
    assert dropped == []


def test_pipal_in_the_split_of_a_published_list(tmp_path):
    """The list has ratings of its own, on another scale; only its names are read."""
    put(tmp_path, "PIPAL.json", b'[{"image": "A0003_00_00.bmp", "gt_score": 3.96}]')
    labels, _ = rows_of("pipal", tmp_path, split_by=str(tmp_path / "PIPAL.json"))
    assert (labels["A0003_00_00.bmp"].split, labels["A0003_00_00.bmp"].mos) == ("test", 0)
    assert [label.split for label in labels.values()].count("test") == 1


def test_the_sets_without_ends_are_those_of_the_catalog():
    assert {name for name, row in CATALOG.items() if row.scale is None} == set(SETS_WITHOUT_ENDS) == set(SCALES)


@pytest.mark.parametrize("name", SCALES)
def test_ends_that_are_not_published_are_never_guessed(name, tmp_path):
    LAYOUTS[name](tmp_path)
    low, high = SCALES[name]
    with pytest.raises(InputError, match=rf"data={name}: .*not published.*data\.scale=\[{low},{high}\]") as caught:
        read_set(name, tmp_path)
    assert "\n" not in str(caught.value)
    assert DataSettings(name, scale=[low, high]).scale == [low, high]
    with pytest.raises(
        InputError, match=r"data=ava has a scale of its own; data\.scale is for data=folder, artimuse10k"
    ):
        DataSettings("ava", scale=[1, 10])


@pytest.mark.parametrize(
    ("name", "scale", "says"),
    [
        ("artimuse10k", [0, 9], r"data\.scale=\[0,9\]: image/15_9\.jpg has 9\.78; choose ends that hold all opinions"),
        ("artimuse10k", [4.2, 9], r"image/0_263\.jpg has 4\.08, and 2 more lie outside"),
        ("pipal", [900, 1800], r"Distortion_2/A0001_05_03\.bmp has 1850"),
    ],
)
def test_an_opinion_outside_chosen_ends_is_refused(name, scale, says, tmp_path):
    """The user chose them, so leaving rows out would bend the set; published ends make a row a fault instead."""
    LAYOUTS[name](tmp_path)
    with pytest.raises(InputError, match=says):
        read_set(name, tmp_path, scale=scale)


def test_sophoappeal_keeps_the_votes_of_each_group(tmp_path):
    labels, dropped = rows_of("sophoappeal", tmp_path)
    first = labels["0000_500px.jpg"]
    stars = [k for k, n in zip(range(1, 6), (4, 3, 11, 6, 1), strict=True) for _ in range(n)]
    assert first.mos == pytest.approx((statistics.mean(stars) - 1) / 4)
    assert first.mos_std == pytest.approx(statistics.stdev(stars) / 4)
    assert first.n_raters == 25
    assert first.attributes["votes"] == [4, 3, 11, 6, 1]
    assert first.attributes["other_votes"] == {"university": [3, 16, 2, 3, 0], "lab": [1, 6, 5, 6, 4]}
    assert "lab" not in labels["0005_ava.jpg"].attributes["other_votes"]
    assert dropped == {"images/0001_own.jpg": "no rating by the crowd"}


def test_the_votes_of_single_people_are_kept_where_they_are_published(tmp_path):
    result = {name: rows_of(name, tmp_path / name)[0] for name in ("ava", "flickr_aes", "para")}
    assert result["ava"]["953619.jpg"].attributes == {"votes": [0, 1, 5, 17, 38, 36, 15, 6, 5, 1]}
    assert result["flickr_aes"]["farm1_27_1.jpg"].attributes == {"votes": [1, 0, 1, 0, 0]}
    assert result["flickr_aes"]["farm1_27_3.jpg"].attributes == {}  # nobody's single rating is published
    assert result["para"]["iaa_Test.jpg"].attributes == {"semantic": "plant", "votes": [0, 0, 1, 0, 0, 0, 4, 0, 0]}


def test_an_opinion_off_the_scale_is_left_out(tmp_path):
    LAYOUTS["tad66k"](tmp_path)
    put(tmp_path, "merge/test.csv", b"image,score\r\na.jpg,11\r\nb.jpg,0\r\n")
    labels, dropped = read_set("tad66k", tmp_path)
    assert [label.fault for label in dropped] == ["opinion off the scale: 11 lies outside 0..10"]
    assert [label.mos for label in labels if label.split == "test"] == [0]


@pytest.mark.parametrize("rows", [3, 40_000])
@pytest.mark.parametrize(
    ("name", "file", "header", "row"),
    [
        ("eva", "data/votes_filtered.csv", "image_id=user_id=score", "{0}=E{0}=5"),
        ("agiqa3k", "data.csv", "name,mos_quality,std_quality,prompt", "{0}.png,1,1,a cat"),
        ("baid", "dataset/train_set.csv", "image,score", "{0}.png,1"),
    ],
)
def test_a_quote_that_is_not_closed_swallows_no_rows(name, file, header, row, rows, tmp_path):
    """The reader would take the rest of the file for one cell, or end in an error of its own where that is long."""
    LAYOUTS[name](tmp_path)
    separator = "=" if name == "eva" else ","
    lines = [header, *(row.format(index) for index in range(1, rows + 1))]
    for place in (0, 2):
        broken = [*lines]
        broken[place] = broken[place].replace(separator, f'{separator}"', 1)
        put(tmp_path, file, "\n".join(broken).encode())
        with pytest.raises(
            InputError, match=rf"{file}, line {place + 1}: .*a quote that opens there is not closed"
        ) as caught:
            read_set(name, tmp_path)
        assert "\n" not in str(caught.value)


COUNTS = "image,mos,count_1,count_2,count_3\na.jpg,2.25,1,1,2\nb.jpg,2,,,\n"


def test_counts_of_your_own_raters(tmp_path):
    """They give the spread where no column does; an empty row has none."""
    put(tmp_path, "labels.csv", COUNTS.encode())
    labels, _ = read_set("folder", tmp_path, scale=[1, 3])
    counted, empty = (next(label for label in labels if label.image == name) for name in ("a.jpg", "b.jpg"))
    assert counted.attributes == {"votes": [1, 1, 2]}
    assert (counted.mos, counted.n_raters) == (0.625, 4)
    assert counted.mos_std == pytest.approx(statistics.stdev([1, 2, 3, 3]) / 2)
    assert (empty.attributes, empty.mos_std, empty.n_raters) == ({}, None, None)


def test_columns_of_counts_are_found_in_any_case(tmp_path):
    put(tmp_path, "labels.csv", COUNTS.replace("count_1", "Count_1").replace("count_3", "COUNT_3").encode())
    labels, _ = read_set("folder", tmp_path, scale=[1, 3])
    assert [label.attributes for label in labels if label.image == "a.jpg"] == [{"votes": [1, 1, 2]}]


def test_counts_may_differ_from_a_rounded_opinion(tmp_path):
    put(tmp_path, "labels.csv", COUNTS.replace("2.25", "2.3").encode())
    labels, _ = read_set("folder", tmp_path, scale=[1, 3])
    assert labels[0].attributes or labels[1].attributes


@pytest.mark.parametrize(
    ("levels", "scale"), [(("1", "1.5", "2"), (1, 2)), (("1", "1,5", "2"), (1, 2)), (("-1", "0", "1"), (-1, 1))]
)
def test_counts_of_levels_with_a_decimal_comma_or_a_minus(levels, scale, tmp_path):
    names = ";".join(f"count_{level}" for level in levels)
    put(tmp_path, "labels.csv", f"image;mos;{names}\na.jpg;{levels[1]};1;2;1\n".encode())
    (label,), _ = read_set("folder", tmp_path, scale=scale)
    assert (label.attributes, label.n_raters, label.mos) == ({"votes": [1, 2, 1]}, 4, 0.5)


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ({"count_1": 1, "count_3": 1}, "line 2: counts of 2 levels, 3 in earlier rows; give every row all levels"),
        ({"count_2": 4}, "line 2: count_2 alone is no scale; give all levels, with 0 for what nobody chose"),
    ],
)
def test_a_row_of_json_that_leaves_out_levels_is_refused(second, says, tmp_path):
    first = {"image": "a.jpg", "mos": 2, "count_1": 1, "count_2": 1, "count_3": 1}
    rows = [first, {"image": "b.jpg", "mos": 2, **second}]
    put(tmp_path, "labels.jsonl", "\n".join(map(json.dumps, rows)).encode())
    with pytest.raises(InputError, match=says):
        read_set("folder", tmp_path, scale=(1, 3))


@pytest.mark.parametrize(
    ("content", "scale", "says"),
    [
        (COUNTS.replace("2.25", "1.9"), [1, 3], r"line 2: mos=1\.9, but the mean of its counts is 2\.25; mend the one"),
        (
            COUNTS.replace("count_2", "count_1.0"),
            [1, 3],
            r"count_1 and count_1\.0 are counts of one level; take one out",
        ),
        (COUNTS.replace("count_3", "Count_1"), [1, 3], "count_1 and Count_1 are counts of one level"),
        (COUNTS.replace("2.25", ".5").replace(",2,", ",1,"), None, r"data\.scale=\[1,3\]"),
        (COUNTS, [1, 5], r"count_1 \.\. count_3 are not the levels of a scale from 1 to 5"),
        (COUNTS.replace("count_2", "count_2.5"), [1, 3], "at equal distances"),
        (
            COUNTS.replace("count_2,count_3", "more,others"),
            [1, 3],
            "line 2: count_1 alone is no scale; give all levels",
        ),
        (COUNTS.replace("25,1,1", "25,-1,1"), [1, 3], "line 2: counts .* must be whole numbers"),
        (COUNTS.replace("25,1,1", "25,0.5,1"), [1, 3], "line 2: counts .* must be whole numbers"),
        (COUNTS.replace("25,1,1", "25,1e300,1"), [1, 3], "line 2: counts .* from 0 to 1000000000"),
        (COUNTS.replace("25,1,1", "25,many,1"), [1, 3], "count_1='many' is not a number"),
    ],
)
def test_counts_that_do_not_fit_the_scale_are_refused(tmp_path, content, scale, says):
    put(tmp_path, "labels.csv", content.encode())
    with pytest.raises(InputError, match=says):
        read_set("folder", tmp_path, scale=scale)
