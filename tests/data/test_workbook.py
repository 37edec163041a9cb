"""Workbooks as programs write them that do not calculate, and with charts before the labels."""

from __future__ import annotations

import logging
import re
import zipfile

import pytest

from aes_r1.data.labels import folder_labels
from aes_r1.data.workbook import sheet
from aes_r1.settings import InputError

openpyxl = pytest.importorskip("openpyxl")
HEADER = ["image", "mos", "mos_std", "split", "count_0", "count_1", "color"]
ROW = ["a.jpg", 0.5, 0.1, "train", None, None, 7]


def book(path, *rows, charts=(), header=HEADER):
    made = openpyxl.Workbook()
    for row in (header, *rows):
        made.active.append(row)
    for place in charts:
        made.create_chartsheet(f"chart {place}", place)
    made.save(path / "labels.xlsx")


def rewritten(path, old, new, part="xl/worksheets/sheet1.xml"):
    """Replace a text in a part of the workbook, as another program would have written it."""
    with zipfile.ZipFile(path / "labels.xlsx") as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert old in parts[part]
    parts[part] = parts[part].replace(old, new)
    with zipfile.ZipFile(path / "labels.xlsx", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("name", HEADER)
def test_a_formula_without_its_result_is_refused_by_its_cell(name, tmp_path):
    place = HEADER.index(name)
    book(tmp_path, ROW, [*ROW[:place], "=B2+1", *ROW[place + 1 :]])
    says = f"labels.xlsx: cell {'ABCDEFG'[place]}3 of sheet Sheet holds a formula without its result; open the workbook"
    with pytest.raises(InputError, match=re.escape(says)):
        folder_labels(tmp_path)


@pytest.mark.slow
def test_formulas_alone_in_a_row_and_in_the_header_are_refused(tmp_path):
    book(tmp_path, ROW, [f"={letter}2" for letter in "ABCD"])
    with pytest.raises(InputError, match="cell A3"):
        folder_labels(tmp_path)
    book(tmp_path, ROW, header=[*HEADER[:3], "=CONCATENATE(H1)", *HEADER[4:]])
    with pytest.raises(InputError, match="cell D1"):
        folder_labels(tmp_path)


FORMULA = "<f>B1</f>"


@pytest.mark.parametrize(
    ("cell", "split"),
    [
        ('<c r="D2" t="str"><f>B1</f><v></v></c>', None),  # =IF(..,"") as Excel saves it
        ('<c r="D2" t="str"><f>B1</f><v>test</v></c>', "test"),
        ('<c r="D2"><f>B1</f><v></v></c>', "refused"),
        ('<c r="D2"><f>B1</f></c>', "refused"),
        ("<c><f>B1</f></c>", "refused"),  # it stands where the cell before it ends
        ('<c r="D2"><f t="shared" si="0"/><v/></c>', "refused"),
    ],
)
def test_an_empty_text_is_a_result(cell, split, tmp_path):
    book(tmp_path, [*ROW[:3], "=B1", *ROW[4:]])
    rewritten(tmp_path, '<c r="D2"><f>B1</f><v /></c>', cell)
    if split == "refused":
        with pytest.raises(InputError, match="cell D2"):
            folder_labels(tmp_path)
    else:
        assert folder_labels(tmp_path)[0].split == split


@pytest.mark.parametrize("is_recalculated", [True, False])
def test_a_0_in_place_of_every_result_is_none(is_recalculated, tmp_path):
    """As XlsxWriter writes it; a spreadsheet program takes the mark out when it saves the results."""
    book(tmp_path, [ROW[0], "=0.4+0.5", *ROW[2:]])
    rewritten(tmp_path, "<f>0.4+0.5</f><v />", "<f>0.4+0.5</f><v>0</v>")
    if is_recalculated:
        with pytest.raises(InputError, match="cell B2"):
            folder_labels(tmp_path)
    else:
        rewritten(tmp_path, ' fullCalcOnLoad="1"', "", "xl/workbook.xml")
        rewritten(tmp_path, "<f>0.4+0.5</f><v>0</v>", "<f>0.4+0.5</f><v>0.9</v>")
        assert folder_labels(tmp_path)[0].mos == 0.9


def test_formulas_that_nothing_reads_do_no_harm(tmp_path):
    """Beside the table, and in a published workbook, which its readers cannot mend."""
    book(tmp_path, [*ROW, "=B2"])
    assert [label.image for label in folder_labels(tmp_path)] == ["a.jpg"]
    book(tmp_path, [*ROW[:3], "=B2", *ROW[4:]])
    assert [row["split"] for _, row in sheet(tmp_path / "labels.xlsx")] == [None]


@pytest.mark.parametrize("stated", ["A1:G2", "A1:C3", "A1", "A1:ZZ99"])
def test_cells_outside_the_size_that_a_sheet_states_are_read(stated, tmp_path):
    book(tmp_path, ROW, ["b.jpg", *ROW[1:]])
    rewritten(tmp_path, '<dimension ref="A1:G3" />', f'<dimension ref="{stated}" />')
    assert [label.image for label in folder_labels(tmp_path)] == ["a.jpg", "b.jpg"]
    assert [row["color"] for _, row in sheet(tmp_path / "labels.xlsx")] == [7, 7]


def test_last_cells_that_a_row_leaves_out_are_empty(tmp_path):
    book(tmp_path, ROW[:4], [*ROW, "beside the table"])
    rows = [row for _, row in sheet(tmp_path / "labels.xlsx")]
    assert [row["color"] for row in rows] == [None, 7]
    assert rows[0].keys() == rows[1].keys()


@pytest.mark.parametrize("charts", [(0,), (1,), (0, 1, 3)])
def test_charts_are_no_sheets_of_labels(charts, tmp_path):
    book(tmp_path, ROW, charts=charts)
    assert [label.image for label in folder_labels(tmp_path)] == ["a.jpg"]
    book(tmp_path, [*ROW[:3], "=B2", *ROW[4:]], charts=charts)
    with pytest.raises(InputError, match="cell D2 of sheet Sheet"):
        folder_labels(tmp_path)


def test_a_workbook_of_charts_alone_says_so(tmp_path):
    made = openpyxl.Workbook()
    made.create_chartsheet("chart").add_chart(openpyxl.chart.BarChart())
    made.remove(made.active)
    made.save(tmp_path / "labels.xlsx")
    with pytest.raises(InputError, match=r"labels\.xlsx: holds charts alone, no sheet with cells; put the labels into"):
        folder_labels(tmp_path)


def styled(path, change, *rows):
    book(path, *rows)
    made = openpyxl.load_workbook(path / "labels.xlsx")
    change(made)
    made.save(path / "labels.xlsx")


def hide_rows(made):
    made.active.row_dimensions[3].hidden = True
    made.active.auto_filter.ref = "A1:G4"
    made.active.row_dimensions[4].hidden = True
    made.active.row_dimensions[9].hidden = True  # without labels


def hide_sheet(made):
    made.create_sheet("shown")
    made.active.sheet_state = "hidden"
    made.active = 1


HIDDEN = {
    hide_rows: "2 of 3 rows are hidden (by a filter or by hand)",
    hide_sheet: "the sheet Sheet is hidden",
    (lambda made: None): None,
}


@pytest.mark.parametrize(("hide", "says"), HIDDEN.items(), ids=["rows", "sheet", "nothing"])
def test_hidden_labels_are_read_and_noted_once(hide, says, tmp_path, caplog):
    styled(tmp_path, hide, *([name, *ROW[1:]] for name in ("a.jpg", "b.jpg", "c.jpg")))
    with caplog.at_level(logging.WARNING, "aes_r1"):
        for _ in range(3):
            assert [label.image for label in folder_labels(tmp_path)] == ["a.jpg", "b.jpg", "c.jpg"]
    note = f"{tmp_path}/labels.xlsx: {says}, but read like the others; delete what is not meant"
    assert caplog.messages == ([note] if says else [])


def test_a_row_of_no_height_is_hidden(tmp_path, caplog):
    book(tmp_path, ROW)
    rewritten(tmp_path, '<row r="2"', '<row ht="0" customHeight="1" r="2"')
    assert len(folder_labels(tmp_path)) == 1
    assert "1 of 1 rows are hidden" in caplog.text


def test_a_hidden_sheet_with_labels_is_called_hidden(tmp_path):
    def add(made):
        made.create_sheet("More").append(["image", "mos"])
        made["More"].sheet_state = "hidden"

    styled(tmp_path, add, ROW)
    with pytest.raises(InputError, match=r"labels stand in sheet Sheet and More \(hidden\), but only the first"):
        folder_labels(tmp_path)


@pytest.mark.parametrize(
    ("cells", "is_refused"),
    [("D2:D3", True), ("A2:A3", True), ("C3:D3", True), ("B1:B2", True), ("H2:H3", False), ("B1:C1", False)],
)
def test_merged_cells_of_which_only_the_first_has_a_value_are_refused(cells, is_refused, tmp_path):
    """Merged splits look as if every row had one, but all rows after the first would be train."""
    styled(tmp_path, lambda made: made.active.merge_cells(cells), ROW, ["b.jpg", *ROW[1:]])
    if is_refused:
        with pytest.raises(InputError, match=f"the cells {cells} of sheet Sheet are merged, .*unmerge them"):
            folder_labels(tmp_path)
    elif cells == "H2:H3":
        assert [label.mos for label in folder_labels(tmp_path)] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("form", "scale", "mos"),
    [
        ("0%", (0, 1), 0.5),
        ("0.00%", (0, 100), None),
        ("0%", (0, 10), None),
        ('0.0"%"', (0, 100), 0.5),
        ("0.0\\%", (0, 100), 0.5),
        ("0.00", (0, 100), 0.5),
    ],
)
def test_an_opinion_shown_as_percent_is_read_on_a_scale_to_one_alone(form, scale, mos, tmp_path):
    """A cell that shows 50% holds 0.5, and on a scale to 100 its row would mean nearly the worst."""

    def change(made):
        made.active["B2"].number_format = form

    styled(tmp_path, change, ["a.jpg", 0.5])
    if mos is None:
        with pytest.raises(InputError, match=r"line 2: mos is shown as 50%, but stands for 0\.5; write it as a number"):
            folder_labels(tmp_path, scale)
    else:
        assert [label.mos for label in folder_labels(tmp_path, scale)] == [mos]
