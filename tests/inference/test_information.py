"""The information in words and number, on models for which it is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aes_r1.data.sample import open_picture
from aes_r1.inference.information import joined, likelihoods, nats
from aes_r1.model.likelihood import completion_likelihood
from aes_r1.prompts import RATING_PROMPT, answer, critique_tokens
from tests.planted import CRITIQUES, QUESTION


def rows_of(folder, texts):
    return [
        {"image": str(path), "text": text}
        for path, text in zip(sorted(folder.glob("*.png")), texts, strict=False)
    ]  # fmt: skip


def test_nats_by_hand():
    table = np.asarray([[[-2.0, -1.0], [-5.0, -1.0], [-7.0, -2.0]]])  # own picture, then two others
    assert nats(table).tolist() == [[-2 - (-5 - 7) / 2, -1 - (-1 - 2) / 2]] == [[4.0, 0.5]]
    assert np.isnan(nats(table[:, :1])).all(), "without another picture nothing can be told"
    assert nats(np.empty((0, 1, 2))).shape == (0, 2)


@pytest.mark.slow
def test_a_table_is_what_each_text_gets_alone_whoever_looks(backbone, picture_folder):
    rows = rows_of(picture_folder, [answer(words, 0.37) for words in ("a dull light", "", "deep shadow .", "a", "b")])
    whole = likelihoods(backbone, rows, question=RATING_PROMPT, others=2, batch_size=2)
    assert whole.shape == (5, 3, 2)
    alone = {}
    for place, row in enumerate(rows):
        tokens = torch.tensor([backbone.encode_answer(row["text"])])
        words = len(critique_tokens(backbone.pieces(tokens[0])))
        for at, other in enumerate(rows):
            prompts = backbone.collate([backbone.encode(open_picture(other["image"]), RATING_PROMPT)])
            with torch.no_grad():
                logps, _ = completion_likelihood(
                    backbone, prompts, tokens, torch.ones_like(tokens, dtype=torch.bool), torch.zeros(1, dtype=int)
                )
            alone[place, at] = (float(logps[0, :words].sum()), float(logps[0, words:].sum()))
    for place in range(5):
        assert whole[place, 0] == pytest.approx(alone[place, place], abs=1e-3)
        under = [tuple(np.round(one, 2)) for one in whole[place, 1:]]
        assert all(one in [tuple(np.round(alone[place, at], 2)) for at in range(5) if at != place] for one in under)
    shares = [likelihoods(backbone, rows, question=RATING_PROMPT, others=2, rank=rank, size=2) for rank in (0, 1)]
    assert all(np.isnan(share).any() for share in shares)
    np.testing.assert_allclose(joined(shares), whole, atol=1e-3)


def test_few_texts_see_as_many_others_as_there_are(backbone, picture_folder):
    rows = rows_of(picture_folder, [answer("a", 0.1), answer("b", 0.2)])
    assert likelihoods(backbone, rows, question=RATING_PROMPT, others=4).shape == (2, 2, 2)
    assert likelihoods(backbone, rows[:1], question=RATING_PROMPT).shape == (1, 1, 2)
    assert likelihoods(backbone, [], question=RATING_PROMPT).shape == (0, 1, 2)


@pytest.mark.slow
def test_the_number_of_a_hollow_critic_knows_the_picture_and_its_words_do_not(planted):
    """Both write each critique under every picture, so only the number of the hollow one carries information."""
    found = {}
    for name, backbone in (("used", planted.used), ("hollow", planted.hollow)):
        said = list(CRITIQUES.items()) * 3
        rows = [
            {"image": one.image, "text": answer(words, value if name == "used" else one.mos)}
            for one, (words, value) in zip(planted.samples, said, strict=True)
        ]
        found[name] = nats(likelihoods(backbone, rows, question=QUESTION)).mean(axis=0)
    assert abs(found["used"][0]) < 0.3
    assert abs(found["hollow"][0]) < 0.3
    assert abs(found["used"][1]) < 0.3
    assert found["hollow"][1] > 2
