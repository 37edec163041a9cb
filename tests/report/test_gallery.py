from PIL import Image

from aes_r1.prompts import split_critique
from aes_r1.report.gallery import choose, plates
from aes_r1.report.html import templates


def row(identity, score, mos, **more):
    return {"stage": "rapo", "id": identity, "score": score, "mos": mos, "scores": [score], "critique": None, **more}


def test_critique_by_dimension():
    critique = (
        "Light and shadow: soft light from the left. Mood and narrative: calm, a quiet story. Composition: balanced. "
        "Color: warm hues. Exposure: sound; detail kept. A strong picture."
    )
    parts, judgement = split_critique(critique)
    assert parts == [
        ("Light and shadow", "soft light from the left."),
        ("Mood and narrative", "calm, a quiet story."),
        ("Composition", "balanced."),
        ("Color", "warm hues."),
        ("Exposure", "sound; detail kept."),
    ]
    assert judgement == "A strong picture."


def test_critiques_as_large_models_write_them():
    parts, judgement = split_critique(
        "The scene is calm.\n**Composition:** thirds.\n- Colour: warm grade.\nEXPOSURE - even."
    )
    assert parts == [
        ("Overall", "The scene is calm."),
        ("Composition", "thirds."),
        ("Colour", "warm grade."),
        ("Exposure", "even."),
    ]
    assert judgement == ""


def test_words_inside_a_sentence_open_no_part():
    assert split_critique("Its composition: loose. Nothing else.") == ([], "Its composition: loose. Nothing else.")
    assert split_critique("") == ([], "")


def test_choice():
    rows = [row(f"{i:03d}", (i * 37 % 100) / 100, i / 100) for i in range(100)]
    rows += [row(f"x{i}", None, 0.5) for i in range(8)] + [row("unlabelled", 0.5, None)]
    chosen = choose(rows, each=5)
    closest = [one["mos"] for one in chosen["closest"]]
    assert len(closest) == 5
    assert max(closest) - min(closest) > 0.5
    assert all(abs(one["score"] - one["mos"]) < 0.15 for one in chosen["closest"])
    errors = sorted(
        abs(one["score"] - one["mos"]) for one in rows if one["score"] is not None and one["mos"] is not None
    )
    assert [abs(one["score"] - one["mos"]) for one in chosen["furthest"]] == errors[::-1][:5]
    assert len({one["id"] for one in chosen["unanswered"]} & {f"x{i}" for i in range(8)}) == 2
    drawn = {one["id"] for seed in range(30) for one in choose(rows, each=5, seed=seed)["unanswered"]}
    assert drawn == {f"x{i}" for i in range(8)}, "not the first ones alone"
    shown = {one["id"] for one in chosen["closest"] + chosen["furthest"]}
    assert len(chosen["random"]) == 5
    assert not shown & {one["id"] for one in chosen["random"]}
    assert chosen["uncertain"] == []  # one answer each has no spread
    assert choose(rows, each=5) == chosen
    assert not any(choose([]).values())


def test_the_least_sure_have_the_widest_spread():
    rows = [row(f"{i:03d}", 0.5, i / 100, scores=[0.5 - i / 400, None, 0.5 + i / 400]) for i in range(100)]
    chosen = choose(rows, each=4)
    elsewhere = {one["id"] for one in chosen["closest"] + chosen["furthest"]}
    widest = [one["id"] for one in rows[::-1] if one["id"] not in elsewhere][:4]
    assert [one["id"] for one in chosen["uncertain"]] == widest
    assert not set(widest) & {one["id"] for one in chosen["random"]}


def test_plates(tmp_path):
    Image.new("RGB", (2000, 1000), (10, 120, 200)).save(tmp_path / "a.jpg")
    (tmp_path / "broken.jpg").write_text("no picture")
    shown = plates(
        [
            row("a", 0.7, 0.4, image=str(tmp_path / "a.jpg"), critique="Color: <b>blue</b>. Good."),
            row("b", None, 0.4, image=str(tmp_path / "gone.jpg"), text="<think>unfinished"),
            row("c", 0.5, 0.4, image=str(tmp_path / "broken.jpg")),
        ]
    )
    html = templates().get_template("parts.html").module.gallery(shown)
    assert html.count("data:image/jpeg;base64,") == 1
    assert len(html) < 30_000
    assert "&lt;b&gt;blue&lt;/b&gt;." in html
    assert "<b>blue" not in html
    assert "picture b not at hand" in html
    assert "&lt;think&gt;unfinished" in html
    assert "picture c cannot be read" in html
