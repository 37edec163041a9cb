import base64
import json
from pathlib import Path
from urllib.parse import quote

import pytest

from aes_r1.data.loader import load_samples
from aes_r1.data.records import read_records, require_one_opinion, unique_samples
from aes_r1.data.sample import open_picture
from aes_r1.prompts import answer, untaught
from aes_r1.settings import DataSettings, InputError

OURS = {"id": "a", "image": "pictures/a.jpg", "dataset": "ava", "mos": 0.63, "critique": "Soft light.", "level": "fair"}
RELEASED = {
    "messages": [
        {"role": "user", "content": "<image>Judge this."},
        {"role": "assistant", "content": answer("Soft light.", 0.63)},
    ],
    "images": ["/data/b.jpg"],
}


def write(tmp_path, *rows, prefix=""):
    path = tmp_path / "file.jsonl"
    path.write_text(prefix + "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def test_own_records_are_read_with_their_pictures_beside_the_file(tmp_path):
    (row,) = read_records(write(tmp_path, OURS))
    assert row == {**OURS, "image": str(tmp_path / "pictures/a.jpg")}


def test_the_released_shape_is_read(tmp_path):
    (row,) = read_records(write(tmp_path, RELEASED, prefix="\ufeff"))
    assert (row["image"], row["mos"], row["critique"]) == ("/data/b.jpg", 0.63, "Soft light.")
    assert row["id"]


def test_the_released_arrays_with_one_path_instead_of_a_list_are_read(tmp_path):
    rows = [{**RELEASED, "images": "b.jpg"}, {**RELEASED, "images": "/data/c.jpg"}]
    path = tmp_path / "example.json"
    path.write_text(json.dumps(rows, indent=4))
    assert [row["image"] for row in read_records(path)] == [str(tmp_path / "b.jpg"), "/data/c.jpg"]
    path.write_text(json.dumps([*rows, 1]))
    with pytest.raises(InputError, match=":3: not a JSON object"):
        read_records(path)


def test_a_critique_may_hold_line_separators_of_unicode(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps({**OURS, "critique": "Soft\u2028light.\x85"}, ensure_ascii=False) + "\n")
    assert read_records(path)[0]["critique"] == "Soft\u2028light.\x85"


def test_content_in_parts_is_read(tmp_path):
    parts = [{"type": "text", "text": answer("Soft light.", 0.5)}]
    row = {**RELEASED, "messages": [{"role": "assistant", "content": parts}]}
    assert read_records(write(tmp_path, row))[0]["critique"] == "Soft light."


def test_blank_lines_are_skipped_and_samples_have_each_picture_once(tmp_path):
    path = write(tmp_path, OURS, "", RELEASED, OURS)
    assert len(read_records(path)) == 3
    samples = unique_samples(read_records(path))
    assert [(sample.mos, sample.split) for sample in samples] == [(0.63, "train"), (0.63, "train")]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{not json", ":1: not a JSON object"),
        ("[1]", ":1: not a JSON object"),
        ({**OURS, "critique": None}, "no critique"),
        ({"id": "a"}, "no image, mos, critique"),
        ({**OURS, "mos": 6.3}, "mos=6.3"),
        ({**OURS, "mos": "0.6"}, "mos='0.6'"),
        ({**RELEASED, "images": []}, "images"),
        ({**RELEASED, "messages": [{"role": "assistant", "content": "0.6"}]}, "last message"),
        (
            {**RELEASED, "messages": [{"role": "assistant", "content": answer("x", 0.5).replace("0.50", "85/100")}]},
            "last",
        ),
    ],
)
def test_a_wrong_line_is_named(tmp_path, row, said):
    with pytest.raises(InputError, match=said.replace("[", r"\[")):
        read_records(write(tmp_path, row))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.jsonl"):
        read_records(tmp_path / "nowhere.jsonl")


# ------------------------------------------------------------------------------------------- what other tools write

SAID = answer("Soft light.", 0.63)
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
ASK = {"role": "user", "content": "<image>Judge this."}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASK, {"role": "assistant", "content": SAID}], "images": ["a.jpg"]},
        {"messages": [ASK, {"role": "assistant", "content": SAID}], "images": [{"path": "a.jpg", "bytes": None}]},
        {"messages": [ASK, {"role": "assistant", "content": [{"type": "text", "text": SAID}]}], "image": "a.jpg"},
        {"messages": [{"role": "user", "content": [{"type": "image", "image": "a.jpg"}, {"type": "text", "text": "?"}]},
                      {"role": "assistant", "content": SAID}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.jpg"}}]},
                      {"role": "assistant", "content": SAID}]},
        {"conversations": [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": SAID}], "image": "a.jpg"},
        {"conversations": [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": SAID}], "images": "a.jpg"},
        {"query": "?", "response": SAID, "images": ["a.jpg"]},
        {"prompt": "?", "completion": SAID, "image": "a.jpg"},
        {"prompt": [ASK], "completion": [{"role": "assistant", "content": SAID}], "image": "a.jpg"},
        {"instruction": "?", "input": "", "output": SAID, "images": ["a.jpg"]},
        {"id": 7, "image": {"path": "a.jpg"}, "mos": 0.63, "critique": "Soft light."},
    ],
)  # fmt: skip
def test_conversations_of_other_tools(row, tmp_path):
    (result,) = read_records(write(tmp_path, row))
    assert (result["image"], result["mos"], result["critique"]) == (str(tmp_path / "a.jpg"), 0.63, "Soft light.")


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ("pictures/a.jpg", "{folder}/pictures/a.jpg"),
        ("./pictures//a.jpg", "{folder}/pictures/a.jpg"),
        ("pictures\\a.jpg", "{folder}/pictures/a.jpg"),
        ("pictures/../a.jpg", "{folder}/a.jpg"),
        ("/data/a b.jpg", "/data/a b.jpg"),
        ("file:///data/a%20b.jpg", "/data/a b.jpg"),
        ("/data/../data//./a.jpg", "/data/a.jpg"),
        ("file://localhost/data/a.jpg", "/data/a.jpg"),
        ("~/a.jpg", str(Path.home() / "a.jpg")),
        ("Bäume 图.jpg", "{folder}/Bäume 图.jpg"),
    ],
)
def test_local_paths_of_every_kind(given, place, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").touch()
    for image in (given, {"path": given}, {"path": given, "bytes": None}, {"url": given}):
        (result,) = read_records(write(tmp_path, {**OURS, "image": image}))
        assert result["image"] == place.format(folder=tmp_path)


@pytest.mark.parametrize(
    "image",
    [
        {"bytes": base64.b64encode(PIXEL).decode()},
        {"bytes": list(PIXEL), "path": None},
        {"bytes": base64.b64encode(PIXEL).decode(), "path": "gone.png"},
        f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}",
        {"url": f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"},
        base64.b64encode(PIXEL + bytes(100)).decode(),
        base64.urlsafe_b64encode(PIXEL + b"\xfb\xff" * 60).decode(),
        base64.b64encode(PIXEL + bytes(100)).decode().rstrip("="),
        f"DATA:image/png;BASE64,{base64.b64encode(PIXEL).decode()}",
        base64.b64encode(PIXEL).decode(),  # shorter than a path may be
        base64.b64encode(PIXEL).decode().rstrip("="),
        base64.encodebytes(PIXEL).decode(),
        f"data:image/jpeg;base64,{base64.urlsafe_b64encode(PIXEL).decode()}",
        f"data:;base64,{quote(base64.b64encode(PIXEL).decode(), safe='')}",
        f"data:text/plain;charset=utf-8;base64,{base64.b64encode(PIXEL).decode()}",
    ],
)
def test_pictures_that_lie_in_the_record(image, tmp_path):
    path = write(tmp_path, {**RELEASED, "images": [image]}, {**OURS, "image": image})
    result = read_records(path)
    assert result[0]["image"] == result[1]["image"]
    assert Path(result[0]["image"]).read_bytes()[: len(PIXEL)] == PIXEL
    assert open_picture(result[0]["image"]).size == (1, 1)
    assert read_records(path) == result, "written once"
    assert len(list((tmp_path / ".file.pictures").iterdir())) == 1


def test_pictures_in_a_record_of_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / ".file.pictures").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (result,) = read_records(write(tmp_path, {**OURS, "image": {"bytes": base64.b64encode(PIXEL).decode()}}))
    assert Path(result["image"]).read_bytes() == PIXEL
    assert Path(result["image"]).parent == tmp_path / "cache" / "aes_r1" / "pictures"


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("https://example.org/a.jpg", "download it"),
        ("s3://bucket/a.jpg", "download it"),
        ("C:\\photos\\a.jpg", "no path on this machine"),
        ("../a.jpg", "leaves the folder of the file; give the absolute path"),
        ("pictures/../../a.jpg", "leaves the folder"),
        ("..\\a.jpg", "leaves the folder"),
        ("a\x00.jpg", "no path on this machine"),
        ("a\ud83d.jpg", "no path on this machine"),
        ("", "is no picture"),
        (7, "is no picture"),
        (["a.jpg"], "is no picture"),
        ({}, "is no picture"),
        ({"src": "https://datasets-server.huggingface.co/a.jpg", "height": 8}, "is not on this machine; download it"),
        ({"height": 8}, "image=\"{'height': 8}\" is no picture; give its path"),
        ({"bytes": "no base64!"}, "cannot be unpacked"),
        ({"bytes": [1, 300]}, "cannot be unpacked"),
        ({"bytes": 7}, "cannot be unpacked"),
        ("data:image/png,abc", "cannot be unpacked"),
        ("file://photos/share/a.jpg", "download it"),
        ("file:///photos/a%00.jpg", "no path on this machine"),
        ("file:///photos/a%0Ab.jpg", "no path on this machine"),
        ({"bytes": ""}, "its picture is empty"),
        (PIXEL.hex(), "cannot be unpacked: looks like hex; give base64"),
        (f"0x{PIXEL.hex().upper()}", "looks like hex; give base64"),
        (bytes(200).hex(), "looks like hex; give base64"),
        ({"bytes": PIXEL.hex()}, "looks like hex; give base64"),
        (str(PIXEL), "Python's bytes as text, b'..'; give base64"),
        ({"bytes": str(base64.b64encode(PIXEL))}, "Python's bytes as text, b'..'; give base64"),
        ("data:image/png;base64", "a data: URL must be base64: data:image/png;base64,.., or give its path"),
        ({"bytes": base64.b64encode(PIXEL).decode()[:41]}, "is not whole base64, but cut; encode the file again, or"),
        ({"bytes": ["a"]}, "a list of bytes holds numbers from 0 to 255 alone; give base64, or give its path"),
        ({"bytes": []}, "its picture is empty"),
    ],
)
def test_a_picture_that_cannot_be_meant_is_refused_by_its_line(image, says, tmp_path):
    with pytest.raises(InputError) as caught:
        read_records(write(tmp_path, OURS, {**OURS, "image": image}))
    assert ":2: " in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"conversations": [{"from": "human", "value": "?"}], "image": "a.jpg"}, "last message is the human's"),
        ({"messages": "none", "images": ["a.jpg"]}, "no list of messages"),
        ({"messages": [], "images": ["a.jpg"]}, "no list of messages"),
        ({"messages": [7], "images": ["a.jpg"]}, "the last message"),
        ({"messages": [{"role": "assistant", "content": SAID}], "images": ["a.jpg", "b.jpg"]}, "one picture; it has 2"),
        ({"messages": [{"role": "assistant", "content": SAID}]}, "one picture; it has 0"),
        (
            {"messages": [{"role": "assistant", "content": "So I say 7/10."}], "images": ["a.jpg"]},
            "it ends in 'So I say 7",
        ),
        ({"text": "a", "picture": "b"}, "neither a record"),
        ({**OURS, "mos": True}, "mos=True"),
        ({**OURS, "mos": float("nan")}, "mos=nan"),
        ({**OURS, "mos": 10**400}, "mos=1000"),
        ({**OURS, "critique": ["Soft."]}, "is no text"),
        ({**OURS, "id": {"a": 1}}, "is no name"),
        ({**OURS, "id": ""}, "id='' is empty; give a name"),
        ({**OURS, "id": "a\x1b[2J"}, "holds '\\x1b'; write it without"),
        ({**OURS, "id": "a\tb"}, "holds '\\t'; write it without"),
        ({**OURS, "dataset": "org/name"}, "dataset='org/name' holds /; write it without"),
        ({**OURS, "dataset": "a\nb"}, "holds '\\n'; write it without"),
        ({**OURS, "dataset": 7}, "dataset=7"),
        ({**OURS, "dataset": ["ava"]}, "dataset=['ava']"),
        ({**RELEASED, "mos": 0.9}, "mos=0.9 beside an answer of 0.63"),
        ('{"id": "a", "mos": 0.5, "mos": 0.6}', "the key mos stands twice"),
        ('{"id": "a", "mos": ' + "9" * 5000 + "}", "too many digits"),
        ('{"id": ' + "[" * 100_000, "nested too deep"),
        ("{'id': 'a'}", "not a JSON object"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_is_no_record_is_refused_by_its_line(row, says, tmp_path):
    with pytest.raises(InputError) as caught:
        read_records(write(tmp_path, OURS, row))
    assert ":2: " in str(caught.value)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 400


CHAT = {"choices": [{"index": 0, "message": {"role": "assistant", "content": SAID}}]}
PARTS = [{"role": "user", "parts": [{"text": "?"}]}, {"role": "model", "parts": [{"text": SAID}]}]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"images": ["a.jpg"], "prompt": "?", "chosen": SAID, "rejected": "x"}, "chosen and rejected are of a pair"),
        (
            {"id": "a", "chosen": [{"role": "assistant", "content": SAID}], "rejected": []},
            "chosen and rejected are of a pair",
        ),
        (
            {"images": ["a.jpg"], "conversations": [{"from": "human", "value": "?"}], "chosen": {"value": SAID}},
            "chosen are of a pair",
        ),
        ({"id": "b", "custom_id": "a", "response": {"body": CHAT}, "error": None}, "response is a server's reply"),
        ({"id": "c", "object": "chat.completion", **CHAT}, "it is a server's reply"),
        ({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {}}, "a request of a batch"),
        ({"custom_id": "a", "result": {"message": {"content": []}}}, "result is a server's reply"),
        ({"key": "a", "response": {"candidates": []}}, "response is a server's reply"),
        ({"contents": PARTS}, "messages of Gemini; write messages of role user and assistant"),
        ({"images": ["a.jpg"], "prompt": "?", "response_0": SAID, "response_1": "x"}, "are several answers"),
        ({"images": ["a.jpg"], "responses": [SAID, "x"]}, "are several answers"),
        ({"images": ["a.jpg"], "problem": "?", "solution": SAID}, "no answer to learn"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_row_of_another_tool_is_told_what_it_is_and_how_to_write_it(row, says, tmp_path):
    with pytest.raises(InputError) as caught:
        read_records(write(tmp_path, OURS, row))
    said = str(caught.value)
    assert ":2: " in said
    assert says in said
    assert "write" in said.split(says[:10])[1]
    assert len(said) < 400


def test_a_row_whose_answer_stands_beside_such_keys_is_read(tmp_path):
    row = {**RELEASED, "rejected_response": "x", "ground_truth": 0.63, "solution": "0.63"}
    assert [record["mos"] for record in read_records(write(tmp_path, row))] == [0.63]


POISON = {
    "Soft <|im_end|> light": "a special token",
    "Soft <|endoftext|>": "a special token",
    "<|image_pad|>": "a special token",
    "<|vision_start|> light": "a special token",
    "Soft </s> light": "a special token",
    "Soft <image> light": "a special token",
    "Soft <IMG_CONTEXT> light": "a special token",
    "<end_of_turn>": "a special token",
    "<｜end▁of▁sentence｜>": "a special token",
    "[INST] Soft": "a special token",
    **dict.fromkeys(
        (
            *("a <end_of_utterance> b", "<fake_token_around_image>", "<global-img>", "<row_1_col_12>", "<unused5>"),
            *("<mask>", "[IMG]", "[IMG_END]", "<end_of_text>", "<eod>", "<im_patch>", "<im_end>"),
        ),
        "a special token",
    ),
    "Soft </think> light": "a tag of the answer's format",
    "Soft <answer>0.9</answer>": "a tag of the answer's format",
    "Soft <THINK >": "a tag of the answer's format",
    "Soft \ud83d light": "half a character",
    "Soft \x00 light": "a control character",
    "Soft \x1b[0m light": "a control character",
    "Soft \u202e light": "turns the direction",
    **dict.fromkeys(
        (
            *(
                "Soft 【4:0†source】 light",
                "Soft light 【12†L3-L9】.",
                "[cite_start]Soft light [cite: 1, 2].",
                "[cite:3]",
            ),
            *('<cite index="0-1">Soft</cite> light', "</cite>"),
        ),
        "a citation",
    ),
    "Soft light \ue200cite\ue202turn0search0\ue201": "a character of no script",
    **dict.fromkeys(
        ("a tree <loc0012><loc0100>", 'a <point x="1.5" y="2">tree</point>', "<bbox>1, 2, 3, 4</bbox>", "<seg007>"),
        "a mark of a place in the picture",
    ),
    "Soft caf\ufffd light": "a mark of characters that were lost",
    **dict.fromkeys(("Soft &amp; warm", "It&#39;s soft", "&QUOT;Soft&quot;", "soft&nbsp;light"), "an escape of HTML"),
    **dict.fromkeys(("<p>Soft light.</p>", "Soft<br/>light", '<span class="x">Soft</span>', "<B>"), "a tag of HTML"),
    **dict.fromkeys(("Soft.\\nWarm.", "Soft\\n", "caf\\u00e9", 'a \\"soft\\" light'), "an escape of JSON"),
}


@pytest.mark.parametrize("critique", POISON, ids=lambda text: text.encode("unicode_escape").decode())
def test_text_that_would_break_training_is_refused_by_its_line(critique, tmp_path):
    reason = POISON[critique]
    assert reason in (untaught(critique) or "")
    rows = [{**OURS, "critique": critique}]
    if "think" not in critique.lower() and "answer" not in critique.lower():
        rows.append({**RELEASED, "messages": [{"role": "assistant", "content": answer(critique, 0.5)}]})
    for row in rows:
        with pytest.raises(InputError) as caught:
            read_records(write(tmp_path, OURS, row))
        assert ":2: the critique holds" in str(caught.value)
        assert reason in str(caught.value)
        str(caught.value).encode()  # can be printed


@pytest.mark.parametrize(
    "critique",
    [
        "Soft light.\nA second line.\tTab",
        "f/2.8 < f/4, and 3 > 2",
        "I <3 this",
        "≤ 50%, “quoted” – fine",
        "图 é 😀",
        "a [b] {c} |d|",
        "the focal point <of the picture>, see [1] and 【图】 †",
        "R&D; salt & pepper; a < b and c > d; C:\\new\\textures, $\\nabla$",
    ],
)
def test_ordinary_text_may_be_taught(critique, tmp_path):
    assert untaught(critique) is None
    assert read_records(write(tmp_path, {**OURS, "critique": critique}))[0]["critique"] == critique


def test_a_speaker_in_any_case_and_a_score_beside_the_same_answer(tmp_path):
    turns = [{"role": "user", "content": "?"}, {"role": "Assistant", "content": answer("Soft light.", 0.63)}]
    (row,) = read_records(write(tmp_path, {"messages": turns, "images": ["b.jpg"], "mos": 0.63}))
    assert (row["mos"], row["critique"]) == (0.63, "Soft light.")


def test_records_as_labels_give_a_picture_one_opinion_and_an_id_one_picture(tmp_path):
    again, other = {**OURS, "id": "b", "critique": "Dull."}, {**OURS, "image": "other.jpg"}
    require_one_opinion(read_records(write(tmp_path, OURS, again)))
    with pytest.raises(InputError, match=r"two opinions of one picture \(mos 0.63 in a, 0.2 in b\)"):
        require_one_opinion(read_records(write(tmp_path, OURS, {**again, "mos": 0.2})))
    with pytest.raises(InputError, match="id=a: two pictures"):
        require_one_opinion(read_records(write(tmp_path, OURS, other)))
    with pytest.raises(InputError, match="two opinions of one picture"):
        load_samples(
            DataSettings(name="aescot", root=str(write(tmp_path, OURS, {**again, "mos": 0.2}))),
            "train",
            seed=0,
            store=tmp_path,
        )


TOLD = ["<think>A.</think><answer>1</answer>", "<think>B.</think><answer>0</answer>"]


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"completion": TOLD[0], "response": TOLD[1]}, "two answers (completion, response); keep one"),
        ({"response": TOLD[0], "answer": "0.5"}, "two answers (response, answer); keep one"),
        ({"output": TOLD}, "two answers (output is a list of 2 texts); keep one"),
        ({"messages": [{"role": "assistant", "content": TOLD[0]}], "response": TOLD[1]}, "(messages, response); keep"),
        (
            {
                "messages": [{"role": "assistant", "content": TOLD[0]}],
                "conversations": [{"from": "gpt", "value": TOLD[1]}],
            },
            "two answers (messages, conversations); keep one",
        ),
        (
            {"completion": [{"role": "assistant", "content": TOLD[0]}], "output": TOLD[1]},
            "two answers (completion, output)",
        ),
    ],
)
@pytest.mark.slow
def test_a_record_with_two_answers_is_refused(answers, says, tmp_path):
    with pytest.raises(InputError, match=r"file\.jsonl:1: ") as caught:
        read_records(write(tmp_path, {"prompt": "x", "image": "a.jpg", **answers}))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "answers",
    [
        {"completion": TOLD[0], "response": " ", "answer": None, "output": []},
        {"output": [TOLD[0]]},
        {"completion": TOLD[0], "response": f"{TOLD[0]}\n"},
        {"completion": [{"role": "assistant", "content": TOLD[0]}], "output": TOLD[0]},
        {"output": [TOLD[0]], "response": [{"content": [{"type": "text", "text": TOLD[0]}]}]},
        {"response": [{"role": "user", "content": TOLD[1]}, {"role": "assistant", "content": TOLD[0]}]},
        {"messages": [{"role": "assistant", "content": TOLD[0]}], "answer": "0.5"},
        {"messages": [{"role": "assistant", "content": TOLD[0]}], "conversations": [TOLD[0]], "response": TOLD[0]},
        {"messages": [{"role": "assistant", "content": TOLD[0]}], "response": "", "output": [7], "answer": None},
    ],
)
def test_one_answer_beside_empty_ones_and_the_same_again_is_read(answers, tmp_path):
    (record,) = read_records(write(tmp_path, {"prompt": "x", "image": "a.jpg", **answers}))
    assert (record["mos"], record["critique"]) == (1.0, "A.")


OTHER = PIXEL + bytes(7)


@pytest.mark.parametrize(
    ("named", "held"),
    [
        *((name, PIXEL) for name in ("https://host/a.png", "hf://set/a.png", "../a.png", "C:\\a.png", "\0", "", 7)),
        ("same.png", PIXEL),  # a picture of that name is there
        ("same.png", OTHER),
        ("gone.png", OTHER),
    ],
)
def test_the_bytes_of_a_record_are_its_picture_wherever_its_path_leads(named, held, tmp_path):
    (tmp_path / "same.png").write_bytes(PIXEL)
    image = {"path": named, "bytes": base64.b64encode(held).decode()}
    (row,) = read_records(write(tmp_path, {**OURS, "image": image}))
    assert Path(row["image"]).read_bytes() == held
    assert (row["image"] == str(tmp_path / "same.png")) == (named == "same.png" and held == PIXEL)


def shown(name):
    return {"role": "user", "content": [{"type": "image", "image": name}, {"type": "text", "text": "Judge this."}]}


TOLD_SAID = {"role": "assistant", "content": SAID}
SHOWING = {
    "messages": lambda name: {"messages": [shown(name), TOLD_SAID]},
    "messages, beside the text": lambda name: {"messages": [{**ASK, "images": [name]}, TOLD_SAID]},
    "messages, without types": lambda name: {"messages": [{"role": "user", "content": [{"image": name}]}, TOLD_SAID]},
    "prompt": lambda name: {"prompt": [shown(name)], "completion": [TOLD_SAID]},
    "prompt, one message": lambda name: {"prompt": shown(name), "completion": SAID},
    "prompt, its parts": lambda name: {"prompt": shown(name)["content"], "completion": SAID},
    "instruction": lambda name: {"instruction": [shown(name)], "output": SAID},
    "query and messages": lambda name: {"query": [shown(name)], "messages": [shown(name), TOLD_SAID]},
    "two messages": lambda name: {"messages": [shown("a.jpg"), TOLD_SAID, shown(name), TOLD_SAID]},
}


@pytest.mark.parametrize("place", SHOWING)
@pytest.mark.parametrize("is_record", [False, True])
def test_a_picture_in_a_message_and_another_one_beside_it_are_refused(is_record, place, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(PIXEL)

    def row(inside):
        return {**({**OURS, "image": "a.jpg"} if is_record else {"images": ["a.jpg"]}), **SHOWING[place](inside)}

    with pytest.raises(InputError, match=r":1: two pictures, in a message .*b\.jpg and beside them .*a\.jpg; keep one"):
        read_records(write(tmp_path, row("b.jpg")))
    for inside in ("a.jpg", "./a.jpg", str(tmp_path / "a.jpg"), "https://host/a.jpg", "image_0"):
        (read,) = read_records(write(tmp_path, row(inside)))
        assert read["image"] == str(tmp_path / "a.jpg")


@pytest.mark.parametrize("key", ["images", "image_path", "image_url"])
def test_a_record_with_another_picture_under_another_key_is_refused(key, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(PIXEL)
    record = {**OURS, "image": "a.jpg"}
    with pytest.raises(InputError, match=rf":1: two pictures, under {key} .*b\.jpg and beside them .*a\.jpg; keep one"):
        read_records(write(tmp_path, {**record, key: "b.jpg"}))
    for same in ("a.jpg", ["./a.jpg"], "https://host/a.jpg", "gone.jpg", [], None):
        assert read_records(write(tmp_path, {**record, key: same}))[0]["image"] == str(tmp_path / "a.jpg")


@pytest.mark.parametrize("place", SHOWING)
def test_the_picture_of_a_row_may_stand_in_a_message_alone(place, tmp_path):
    (read,) = read_records(write(tmp_path, SHOWING[place]("a.jpg")))
    assert read["image"] == str(tmp_path / "a.jpg")


def test_a_path_that_begins_with_two_slashes_is_the_same_picture(tmp_path):
    rows = [{**OURS, "image": f"{slashes}{tmp_path}/a.jpg"} for slashes in ("", "/")]
    assert {row["image"] for row in read_records(write(tmp_path, *rows))} == {f"{tmp_path}/a.jpg"}


def marked(**mark):
    return {**RELEASED, "messages": [ASK, {"role": "assistant", "content": SAID, **mark}]}


COMPLETED = {"prompt": [ASK], "completion": [{"role": "assistant", "content": SAID}], "image": "a.jpg"}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({**RELEASED, "label": False}, "label=False"),
        ({**RELEASED, "label": 0}, "label=0"),
        ({**RELEASED, "label": "False"}, "label='False'"),
        ({**COMPLETED, "label": False}, "label=False"),
        ({**COMPLETED, "completion": [{**COMPLETED["completion"][0], "weight": 0}]}, "weight=0"),
        ({**RELEASED, "kto_tag": False}, "kto_tag=False"),
        ({**OURS, "label": False}, "label=False"),
        ({**RELEASED, "weight": 0.0}, "weight=0.0"),
        (marked(loss=False), "loss=False"),
        (marked(weight=0), "weight=0"),
        (marked(train=False), "train=False"),
        (marked(training=False), "training=False"),
        (marked(loss_scale=0.0), "loss_scale=0.0"),
        (marked(masked=True), "masked=True"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_a_row_that_is_marked_as_not_to_be_learned_is_refused_by_its_line(row, says, tmp_path):
    with pytest.raises(InputError) as caught:
        read_records(write(tmp_path, OURS, row))
    assert f":2: {says} marks it as not to be learned; take the row out" in str(caught.value)


@pytest.mark.parametrize("split", ["test", "Validation", "val", "dev "])
@pytest.mark.parametrize("row", [OURS, RELEASED])
def test_a_row_of_another_split_than_train_is_refused(row, split, tmp_path):
    path = write(tmp_path, {**row, "split": "train"}, {**row, "split": split})
    with pytest.raises(InputError, match=f":2: split={split} keeps it out of training; take the row out, or rename"):
        read_records(path)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "base64": base64.b64encode(PIXEL).decode()},
        {"type": "image", "source": {"type": "base64", "data": base64.b64encode(PIXEL).decode()}},
        {"type": "image", "source": {"type": "url", "url": "a.png"}},
        {"type": "image", "bytes": base64.b64encode(PIXEL).decode()},
    ],
)
def test_a_picture_inside_a_part_of_a_message_is_read(part, tmp_path):
    (tmp_path / "a.png").write_bytes(PIXEL)
    question = {"role": "user", "content": [part, {"type": "text", "text": "Judge this."}]}
    (row,) = read_records(write(tmp_path, {"messages": [question, RELEASED["messages"][1]]}))
    assert Path(row["image"]).read_bytes() == PIXEL


def test_a_row_whose_picture_stands_under_another_key_is_told_ours(tmp_path):
    row = {"messages": RELEASED["messages"], "image_file": "a.png"}
    with pytest.raises(InputError, match="it has 0; a picture is read from images, image, image_path, image_url and"):
        read_records(write(tmp_path, row))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (marked(weight=0.5), "weight=0.5"),
        ({**RELEASED, "weight": 2}, "weight=2"),
        ({**OURS, "weight": " 0.25\n"}, r"weight=' 0.25\n'"),
        (marked(loss_scale=0.1), "loss_scale=0.1"),
        (marked(loss=0.3), "loss=0.3"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_a_row_with_a_weight_of_its_own_is_refused_by_its_line(row, says, tmp_path):
    with pytest.raises(InputError) as caught:
        read_records(write(tmp_path, OURS, row))
    assert f":2: {says} is a weight, but every row is taught in whole; set it to 1" in str(caught.value)


@pytest.mark.parametrize(
    "row",
    [
        {**RELEASED, "label": True, "kto_tag": None},
        {**OURS, "label": "landscape", "weight": 1, "masked": False},
        marked(loss=True, weight=1, loss_scale="1.0", masked=0),
        {**OURS, "loss_scale": "last_round"},
        {**RELEASED, "messages": [{**ASK, "loss": False}, {"role": "assistant", "content": SAID}]},
    ],
)
def test_a_row_whose_answer_is_to_be_learned_is_read(row, tmp_path):
    assert read_records(write(tmp_path, row))[0]["mos"] == 0.63


@pytest.mark.parametrize("key", ["messages", "conversations", "completion", "response"])
@pytest.mark.parametrize(
    ("said", "is_same"),
    [
        (SAID, True),
        (answer("Soft  light.\n", 0.63), True),
        ("I have no opinion.", True),
        (answer("Soft light.", 0.21), False),
        (answer("Hard light.", 0.63), False),
        ("Soft light. <answer>0.21</answer>", False),
        ("<answer>0.21</answer><think>Soft light.</think>", False),
        ("<think>Soft light.</think><answer>.21; color 0.5</answer>", False),
    ],
)
def test_a_record_beside_another_answer_is_refused(key, said, is_same, tmp_path):
    turn = {"from": "gpt", "value": said} if key == "conversations" else {"role": "assistant", "content": said}
    given = {key: [turn] if key in ("messages", "conversations") else said}
    record = {**OURS, "mos": 0.6349}  # an answer's score has two decimals
    row = {**record, **given}
    if is_same:
        assert read_records(write(tmp_path, row))[0]["mos"] == 0.6349
    else:
        with pytest.raises(InputError, match=rf":2: two answers \(mos and critique, {key}\); keep one"):
            read_records(write(tmp_path, OURS, row))
