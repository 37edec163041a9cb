"""Rewards of the critiques of a step: what goes in from texts, pictures and the frozen start, by other means too."""

from __future__ import annotations

import contextlib
import copy
import math
import threading
from dataclasses import replace

import pytest
import torch

from aes_r1.data.sample import Sample, blank_picture, open_picture
from aes_r1.inference.information import likelihoods
from aes_r1.model import backbone as backbones
from aes_r1.prompts import DIMENSIONS, RATING_PROMPT, answer, parse_score, unscored
from aes_r1.reward.critique import faithfulness_reward
from aes_r1.rollout.forced_prefix import with_prefix
from aes_r1.rollout.sampler import sample_completions
from aes_r1.runs.stopping import Stopped
from aes_r1.settings import FaithfulnessSettings, InformationSettings, ReadBackSettings, RewardSettings
from aes_r1.trainer import critique_rewards as judged
from aes_r1.trainer.credit import critique_advantage, critique_mask
from aes_r1.trainer.objective import group_advantage
from aes_r1.trainer.sft import blanked
from tests.trainer.test_loops import assert_same, rapo, sft, weights
from tests.trainer.twelve import records

LEVELS = ("flat light, no shadow", "plain light, some shadow", "strong light, deep shadow")
PARTS = RewardSettings(
    faithfulness=FaithfulnessSettings(0.5),
    read_back=ReadBackSettings(1.0),
    information=InformationSettings(2.0, cap=3.0),
)


def spoken(light: str, rest: str = "Color: modest hues.") -> str:
    return f"Light and shadow: {light}. {rest} A mixed picture."


def test_what_is_stated_and_what_is_known():
    stated = judged.stated_table([spoken(LEVELS[2]), "Composition: a lovely, clean and balanced frame.", None, "x"])
    assert stated[0].nan_to_num(-1).tolist() == pytest.approx([5.5 / 6, -1, -1, 3.5 / 6, -1])
    assert stated[1].nan_to_num(-1).tolist() == [-1, -1, 1, -1, -1]
    assert stated[2:].isnan().all()
    known = judged.ratings_table([
        Sample("a", "a.png", 0.5, "scenes", "train", attributes={"factors": dict.fromkeys(DIMENSIONS, 0.25)}),
        Sample("b", "b.png", 0.5, "para", "train", attributes={"ratings": {"color": 0.75}}),
        Sample("c", "c.png", 0.5, "folder", "train"),
    ])  # fmt: skip
    assert known[0].tolist() == [0.25] * 5
    assert known[1].nan_to_num(-1).tolist() == [-1, -1, -1, 0.75, -1]
    assert known[2].isnan().all()


def test_the_advantage_of_critiques_by_hand():
    rewards = {
        "one": torch.tensor([[1.0, 3.0, 100.0], [0.5, 0.5, 0.5]]),
        "two": torch.tensor([[0.0, 0.0, 0.0], [1, 2, 6]]),
    }
    readable = torch.tensor([[True, True, False], [True, True, True]])
    found = critique_advantage(rewards, {"one": 0.25, "two": 2.0}, readable)
    root = math.sqrt(2)
    assert found[0].tolist() == pytest.approx([-0.25 / (root + 1e-4), 0.25 / (root + 1e-4), 0.0])
    torch.testing.assert_close(found[1], 2 * group_advantage(rewards["two"])[1])
    plain = critique_advantage(rewards, {"one": 0.25, "two": 2.0}, readable, scale=False)
    assert plain[0].tolist() == [-0.25, 0.25, 0.0]
    alike = {"one": torch.full((1, 7), 2.9999998), "two": torch.full((1, 7), 0.3)}
    flat = critique_advantage(alike, {"one": 1.0, "two": 1.0}, torch.ones(1, 7, dtype=torch.bool))
    assert float(flat.abs().max()) < 1e-9
    nobody = critique_advantage(rewards, {"one": 1.0, "two": 1.0}, torch.zeros(2, 3, dtype=torch.bool))
    assert nobody.tolist() == [[0, 0, 0], [0, 0, 0]]


class Together:
    """An engine of one of `size` processes, which are threads here."""

    def __init__(self, rank=0, size=1, shares=None, meeting=None):
        self.rank, self.size = rank, size
        self.shares = shares if shares is not None else [None] * size
        self.meeting = meeting or threading.Barrier(1)

    def gathered_parameters(self):
        return contextlib.nullcontext()

    def all_gather(self, values):
        self.shares[self.rank] = values
        self.meeting.wait(timeout=60)
        whole = torch.cat(self.shares)
        self.meeting.wait(timeout=60)
        return whole

    def all_gather_objects(self, values):
        self.shares[self.rank] = values
        self.meeting.wait(timeout=60)
        whole = [one for share in self.shares for one in share]
        self.meeting.wait(timeout=60)
        return whole


@pytest.fixture
def step(backbone, picture_folder):
    """Four pictures with two outputs each, one of which cannot be read: arguments of critique_rewards by process."""
    files = sorted(picture_folder.glob("*.png"))[::3]
    images = [
        Sample(path.name, str(path), 0.2 * (place + 1), "made", "train", attributes={"ratings": {
            "light_and_shadow": 0.1 + 0.25 * place, "color": 0.5 + 0.1 * place}})
        for place, path in enumerate(files)
    ]  # fmt: skip
    texts = [
        answer(spoken(LEVELS[place % 3]), 0.3) if k == 0 or place != 1 else "no answer"
        for place in range(4) for k in range(2)
    ]  # fmt: skip
    texts[5] = answer(spoken(LEVELS[0], "Color: muddy hues."), 0.9)
    scores = [parse_score(text) for text in texts]
    ids = [torch.tensor(backbone.encode_answer(text)) for text in texts]
    tokens = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=backbone.pad_token)
    mask = critique_mask(
        [backbone.pieces(row) for row in ids], scores, length=tokens.shape[1], device=torch.device("cpu")
    )
    encoded = [backbone.encode(open_picture(image.image), RATING_PROMPT) for image in images]

    def arguments(rank, size):
        own = [row for place in range(rank, 4, size) for row in (2 * place, 2 * place + 1)]
        order = [place for first in range(size) for place in range(first, 4, size)]  # as an engine gathers
        return {
            "step": judged.StepCritiques(
                [texts[row] for row in own],
                [scores[row] for row in own],
                tokens[own],
                mask[own],
                images,
                encoded[rank::size],
            ),
            "reward": PARTS,
            "mos": torch.tensor([images[place].mos for place in order]),
            "pool": torch.zeros(4, dtype=torch.long),
            "question": RATING_PROMPT,
            "reference_model": lambda: contextlib.nullcontext(backbone),
            "micro_batch_size": 4,
        }

    backbone.model.eval()
    return images, texts, arguments


@pytest.mark.slow
def test_all_three_rewards_of_a_step(backbone, step):
    images, texts, arguments = step
    found = judged.critique_rewards(**arguments(0, 1), engine=Together())
    assert {name: tuple(one.shape) for name, one in found.items()} == {
        "faithfulness": (4, 2), "read_back": (4, 2), "information": (4, 2),
    }  # fmt: skip
    assert all(float(one[1, 1]) == 0.0 for one in found.values()), "what cannot be read earns nothing"
    critiques = [None if text == "no answer" else text.split("</think>")[0].removeprefix("<think>") for text in texts]
    stated = judged.stated_table(critiques).view(4, 2, 5)
    torch.testing.assert_close(found["faithfulness"], faithfulness_reward(stated, judged.ratings_table(images)))
    assert found["faithfulness"][2, 0] > found["faithfulness"][2, 1]

    for place in (0, 6):  # the nats of evaluation (inference/information.py) under the next two pictures
        row = {"image": images[place // 2].image, "text": texts[place]}
        others = [{"image": images[(place // 2 + shift) % 4].image, "text": "x"} for shift in (1, 2)]
        table = likelihoods(backbone, [row, *others], question=RATING_PROMPT, others=2)[0, :, 0]
        wanted = (table[0] - table[1:]).clip(-3, 3).mean()
        assert float(found["information"].flatten()[place]) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.slow
def test_two_processes_equal_one(step):
    """Each judges its own critiques; other pictures are the same whoever has them."""
    _, _, arguments = step
    whole = judged.critique_rewards(**arguments(0, 1), engine=Together())
    shares, meeting, found = [None, None], threading.Barrier(2), {}

    def process(rank):
        found[rank] = judged.critique_rewards(**arguments(rank, 2), engine=Together(rank, 2, shares, meeting))

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, wanted in whole.items():
        assert torch.equal(found[0][name], found[1][name])
        torch.testing.assert_close(found[0][name], wanted[[0, 2, 1, 3]], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_the_reader_sees_the_words_and_a_gray_square(backbone):
    critiques = [spoken(LEVELS[0]), None, spoken(LEVELS[2])]
    found = judged.read_scores(backbone, critiques, question=RATING_PROMPT, batch_size=2)
    assert found.isnan().tolist()[1]
    for critique, score in zip(critiques, found.tolist(), strict=True):
        if critique is None:
            continue
        prompt = with_prefix(backbone, backbone.encode(blank_picture(), RATING_PROMPT), unscored(critique))
        rollout = sample_completions(
            backbone, backbone.collate([prompt]), num_samples=1, max_new_tokens=16, temperature=1.0, noise=None
        )
        wanted = parse_score(unscored(critique) + backbone.words(rollout.tokens[0][rollout.mask[0]]))
        assert (math.isnan(score) and wanted is None) or score == wanted


def test_rewards_without_weight_are_not_made(step):
    _, _, arguments = step
    given = {
        **arguments(0, 1),
        "reward": replace(PARTS, read_back=ReadBackSettings(), information=InformationSettings()),
    }
    given["reference_model"] = None  # the reference model is not needed
    assert list(judged.critique_rewards(**given, engine=Together())) == ["faithfulness"]


@pytest.mark.slow
def test_steps_that_pay_for_all_three_resume_bit_for_bit(talking_run, tmp_path):
    """RAPO with credit by parts: logged, written down, another gradient, and the same bits again."""
    start = backbones.load(talking_run / "model", dtype="float32", max_pixels=9216)
    pictures = talking_run / "pictures"
    how = {
        "steps": 2,
        "max_new_tokens": 64,
        "temperature": 1.2,
        "credit": "parts",
        "completions_every": 1,
        "reward": PARTS,
    }
    straight, stopped, resumed = (copy.deepcopy(start) for _ in range(3))
    whole, completions = rapo(straight, pictures, tmp_path / "whole", **how)
    for name in ("faithfulness", "read_back", "information"):
        assert math.isfinite(whole[0][f"reward/{name}"])
        assert len({row[f"reward_{name}"] for row in completions}) > 1
    readable = [row for row in completions if row["score"] is not None]
    assert any(row["critique_advantage"] != 0 for row in readable)
    assert all(row["critique_advantage"] == 0 for row in completions if row["score"] is None)
    by_image: dict[tuple, float] = {}
    for place, row in enumerate(completions):
        key = (place // 16, row["id"])
        by_image[key] = by_image.get(key, 0.0) + row["critique_advantage"]
    assert all(abs(total) < 1e-3 for total in by_image.values())
    other, _ = rapo(copy.deepcopy(start), pictures, tmp_path / "answer", **{**how, "steps": 1, "credit": "answer"})
    assert other[0]["reward/total"] == whole[0]["reward/total"]
    assert other[0]["policy/grad_norm"] != pytest.approx(whole[0]["policy/grad_norm"], rel=0.01)
    with pytest.raises(Stopped):
        rapo(stopped, pictures, tmp_path / "parts", stop_after=1, **how)
    rest, _ = rapo(resumed, pictures, tmp_path / "parts", **how)
    assert rest == whole[1:]
    assert_same(weights(straight), weights(resumed))


def test_a_share_of_the_records_is_shown_without_its_picture():
    drawn = [blanked(0, step, position, 0.25) for step in range(100) for position in range(32)]
    assert sum(drawn) / len(drawn) == pytest.approx(0.25, abs=0.02)
    assert drawn == [blanked(0, step, position, 0.25) for step in range(100) for position in range(32)]
    assert not any(blanked(0, step, 0, 0.0) for step in range(100))


@pytest.mark.slow
def test_a_start_that_was_shown_blanks_reads_words_alone(backbone, picture_folder, tmp_path):
    """Four critiques of three pictures each: the reader gives about the mean opinion of the three, in their order.

    About means nearer than .25, by which the means of neighbours differ. Which of the three opinions is the likeliest
    is the machine's to say, and a reader that does not read the words is wrong by .375 at least.
    """
    sft(backbone, picture_folder, tmp_path, epochs=60, blank=0.5)
    backbone.model.eval()
    rows = records(picture_folder)
    found = judged.read_scores(backbone, [row["critique"] for row in rows], question=RATING_PROMPT, batch_size=12)
    assert not found.isnan().any()
    assert all(len(set(found[place : place + 3].tolist())) == 1 for place in (0, 3, 6, 9)), "it sees no picture"
    means = torch.tensor([1.5, 4.5, 7.5, 10.5]) / 12
    assert (found[::3] - means).abs().max() < 0.25
    assert torch.corrcoef(torch.stack([found[::3], means]))[0, 1] > 0.8
