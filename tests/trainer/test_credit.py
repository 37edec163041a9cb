"""The boundary between critique and answer, and every token's advantage, computed by hand."""

from __future__ import annotations

import copy

import pytest
import torch

from aes_r1.model import tiny
from aes_r1.prompts import answer, critique_tokens, parse_score
from aes_r1.settings import TrainerSettings
from aes_r1.trainer.credit import critique_mask, token_advantages, token_kl_coef
from aes_r1.trainer.objective import group_advantage, loss_divisor, policy_loss
from tests.planted import QUESTION
from tests.trainer.test_loops import rapo

CPU = torch.device("cpu")
# "dull.</think><answer>0.6</answer>" as Qwen2.5 tokenises it: ".</" and "><" span two parts.
QWEN = ["<think", ">", "dull", ".</", "think", "><", "answer", ">", "0", ".", "6", "</", "answer", ">"]


@pytest.mark.parametrize(
    ("pieces", "tokens"),
    [
        (QWEN, 5),  # "><" opens the answer, though it closes the critique's tag
        (QWEN[2:], 3),  # the prompt has opened the block: the same boundary
        (["<think>", "dull", ".", "</think>", "<answer>", "1", "</answer>"], 4),  # tags of one token each (Qwen3)
        (["<think>a", "</think>", "Ċ", "<answer>1</answer>"], 2),  # white space between the blocks is the answer's
        (["<think>a</think><answer>1</answer>"], 0),
        (["<think>", "</think>", "<answer>", "1"], 2),  # an empty critique is its tags
        (["<think>", "never", "closed"], 0),
        (["a</th", "ink>", "b</think>", "c"], 2),  # the first closing tag
        ([], 0),
    ],
)
def test_the_boundary_by_hand(pieces, tokens):
    assert critique_tokens(pieces) == range(tokens)


# "<answer>0.6</answer><think>dull.</think>": "><" spans the two blocks.
QWEN_SCORE_FIRST = ["<", "answer", ">", "0", ".", "6", "</", "answer", "><", "think", ">", "dull", ".</", "think", ">"]


@pytest.mark.parametrize(
    ("pieces", "block"),
    [
        (QWEN_SCORE_FIRST, range(9, 15)),  # "><" closes the answer, though it opens the critique's tag
        (["<answer>", "1", "</answer>", "<think>", "dull", "</think>"], range(3, 6)),
        (["<answer>1</answer>", "Ċ", "<think>", "a", "</think>", "Ċ"], range(2, 5)),  # white space is the answer's
        (["<answer>1</answer><think>a</think>"], range(1, 1)),
        (["<answer>", "1", "</answer>", "<think>", "</think>"], range(3, 5)),
        (["<answer>", "1", "</answer>", "<think>", "never", "closed"], range(0)),
        ([], range(0)),
    ],
)
def test_the_boundary_by_hand_where_the_score_comes_first(pieces, block):
    assert list(critique_tokens(pieces, "score_first")) == list(block)


def test_the_boundary_on_a_real_tokenizer():
    """Byte-level BPE that merges across the boundary, with signs of several bytes, with and without the opening tag."""
    texts = [answer(words, 0.37) for words in ("dull light.", "schön · grün.", "日の光.", "")]
    tokenizer = tiny.build_tokenizer(texts * 30)
    backbone = tiny.build_tiny_model(tokenizer, max_pixels=9216, seed=0)
    straddling = 0
    for text in texts:
        for said in (text, text.removeprefix("<think>")):
            tokens = torch.tensor(backbone.encode_answer(said))
            pieces = backbone.pieces(tokens)
            count = len(critique_tokens(pieces))
            before, after = backbone.decode(tokens[:count]), backbone.decode(tokens[count:])
            assert before + after == said
            assert "<answer>" not in before
            assert "0.37</answer>" in after
            straddling += not before.endswith("</think>")
            assert (said.split("</think>")[0] + "</think>").startswith(before)
    assert straddling > 0, "no token lies across the boundary, so the rule was not tried"


def test_an_unreadable_answer_has_no_critique_and_pays_with_every_token():
    rows = [["<think>", "a", "</think>", "1"], ["<think>", "a", "</think>", "x"], ["b", "c"]]
    mask = critique_mask(rows, [1.0, None, None], length=5, device=CPU)
    assert mask.tolist() == [[True, True, True, False, False], [False] * 5, [False] * 5]
    credit = token_advantages(torch.tensor([[1.0, -0.5, -0.5]]), None, mask, "answer")
    assert credit.tolist() == [[0, 0, 0, 1, 1], [-0.5] * 5, [-0.5] * 5]


def test_the_mask_of_a_critique_that_follows_its_score():
    rows = [QWEN_SCORE_FIRST, ["<answer>", "1", "</answer>", "<think>", "a", "</think>"], ["b"]]
    mask = critique_mask(rows, [0.6, 1.0, None], length=16, device=CPU, order="score_first")
    assert [row.nonzero().flatten().tolist() for row in mask] == [[9, 10, 11, 12, 13, 14], [3, 4, 5], []]
    credit = token_advantages(torch.tensor([[1.0, -1.0, 0.5]]), None, mask, "answer")
    assert credit[0].tolist() == [1] * 9 + [0] * 6 + [1], "the score and the end of the turn are paid"


def test_advantages_by_hand():
    scores, critiques = torch.tensor([[1.0, -1.0], [0.5, -0.5]]), torch.tensor([[-2.0, 2.0], [3.0, -3.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]], dtype=torch.bool)
    assert token_advantages(scores, None, mask, "all").tolist() == [[1] * 3, [-1] * 3, [0.5] * 3, [-0.5] * 3]
    assert token_advantages(scores, None, mask, "answer").tolist() == [[0, 0, 1], [0, -1, -1], [0.5] * 3, [0] * 3]
    assert token_advantages(scores, critiques, mask, "parts").tolist() == [
        [-2, -2, 1],
        [2, -1, -1],
        [0.5, 0.5, 0.5],
        [-3, -3, -3],
    ]
    with pytest.raises(ValueError, match="needs critique_advantage"):
        token_advantages(scores, None, mask, "parts")
    with pytest.raises(ValueError, match="credit=words"):
        token_advantages(scores, None, mask, "words")


def test_divergence_weights_by_hand():
    mask = torch.tensor([[True, False]])
    assert token_kl_coef(0.01, None, mask) == 0.01
    assert token_kl_coef(0.01, 0.01, mask) == 0.01
    torch.testing.assert_close(token_kl_coef(0.01, 0.1, mask), torch.tensor([[0.1, 0.01]]))
    torch.testing.assert_close(token_kl_coef(0.01, 0.0, mask), torch.tensor([[0.0, 0.01]]))


@pytest.mark.parametrize(
    ("weights", "needed"), [((0.0, None), False), ((0.01, None), True), ((0.0, 0.1), True), ((0.0, 0.0), False)]
)
def test_the_reference_is_kept_where_a_divergence_is_asked_for(weights, needed):
    assert TrainerSettings(kl_coef=weights[0], critique_kl_coef=weights[1]).needs_reference is needed


def step(rows=8, length=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logps = -torch.rand(rows, length, generator=generator) * 3
    mask = torch.arange(length) < torch.randint(2, length + 1, (rows, 1), generator=generator)
    said = (torch.arange(length) < torch.randint(0, length, (rows, 1), generator=generator)) & mask
    return {
        "logps": logps,
        "old_logps": logps + 0.4 * torch.randn(rows, length, generator=generator),
        "ref_logps": logps + 0.4 * torch.randn(rows, length, generator=generator),
        "mask": mask,
    }, said, group_advantage(torch.rand(2, rows // 2, generator=generator))  # fmt: skip


def gradient(values, credit, kl_coef, cuts, aggregation):
    """Gradient of one optimizer step whose rows are cut into `cuts`, each process and pass with its own longest row."""
    logps = values["logps"].clone().requires_grad_()
    divisor = loss_divisor(values["mask"], aggregation, 7)
    for rows in torch.arange(len(logps)).split(cuts):
        longest = int(values["mask"][rows].sum(dim=1).max())
        part = {name: value[rows, :longest] for name, value in (values | {"logps": logps}).items()}
        weight = kl_coef[rows, :longest] if isinstance(kl_coef, torch.Tensor) else kl_coef
        loss, _ = policy_loss(
            **part, advantages=credit[rows, :longest], clip_low=0.2, clip_high=0.28, kl_coef=weight,
            aggregation=aggregation, normalizer=divisor,
        )  # fmt: skip
        loss.backward()
    return logps.grad


@pytest.mark.parametrize("aggregation", ["sequence_mean", "token_mean", "constant"])
@pytest.mark.parametrize("mode", ["all", "answer", "parts"])
def test_any_cut_gives_the_same_gradient(mode, aggregation):
    values, said, advantages = step()
    credit = token_advantages(advantages, -advantages, said, mode)
    weight = token_kl_coef(0.05, 0.5, said)
    whole = gradient(values, credit, weight, [8], aggregation)
    for cuts in ([1] * 8, [3, 5], [4, 4]):
        torch.testing.assert_close(gradient(values, credit, weight, cuts, aggregation), whole)


@pytest.mark.parametrize("aggregation", ["sequence_mean", "token_mean", "constant"])
def test_credit_for_all_is_one_advantage_per_output_bit_for_bit(aggregation):
    values, said, advantages = step()
    credit = token_advantages(advantages, None, said, "all")
    whole = gradient(values, credit, token_kl_coef(0.05, None, said), [8], aggregation)
    logps = values["logps"].clone().requires_grad_()
    loss, _ = policy_loss(
        **(values | {"logps": logps}), advantages=advantages.flatten(), clip_low=0.2, clip_high=0.28, kl_coef=0.05,
        aggregation=aggregation, normalizer=loss_divisor(values["mask"], aggregation, 7),
    )  # fmt: skip
    loss.backward()
    assert torch.equal(whole, logps.grad)


def test_with_credit_for_the_answer_only_the_divergence_moves_the_critique():
    """On policy d loss / d logp is -(A - w (e^d - 1)) / (tokens x outputs), d = log pi_ref - log pi."""
    values, said, advantages = step()
    values["old_logps"] = values["logps"]
    credit, weight = token_advantages(advantages, None, said, "answer"), token_kl_coef(0.0, 0.5, said)
    found = gradient(values, credit, weight, [8], "sequence_mean")
    length = values["mask"].sum(dim=1, keepdim=True)
    difference = values["ref_logps"] - values["logps"]
    pull = -0.5 * (difference.exp() - 1)
    wanted = torch.where(said, pull, -advantages.reshape(-1, 1)) * values["mask"] / length / 8
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4)


@pytest.mark.slow
def test_a_step_that_pays_the_answer_alone(planted, picture_folder, tmp_path):
    """A step of RAPO each, on a model that says this or that: same outputs and rewards, another gradient, any cut."""

    def one_step(name, **changes):
        how = {"steps": 1, "max_new_tokens": 48, "question": QUESTION, **changes}
        rows, completions = rapo(copy.deepcopy(planted.used), picture_folder, tmp_path / name, **how)
        return rows[0], completions

    whole, completions = one_step("whole", credit="answer")
    cut, _ = one_step("cut", credit="answer", micro_batch_tokens=300, critique_kl_coef=0.05)
    paper, same = one_step("paper")
    assert [row["text"] for row in same] == [row["text"] for row in completions]
    read = [row for row in completions if parse_score(row["text"]) is not None]
    assert len({(row["id"], row["text"].split("</think>")[0]) for row in read}) > len({row["id"] for row in read})
    assert cut == pytest.approx(whole, rel=1e-4, abs=1e-5)
    assert paper["reward/total"] == whole["reward/total"]
    assert paper["policy/grad_norm"] != pytest.approx(whole["policy/grad_norm"], rel=0.01)
