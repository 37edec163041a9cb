import torch

from aes_r1.prompts import parse_score
from aes_r1.reward.format import format_reward


def test_one_exactly_where_the_parser_answers():
    texts = [
        "<think>calm</think><answer>0.63</answer>",
        "0.63",
        "<think></think><answer>1.2</answer>",
        "<answer>.5</answer>",
    ]
    scores = torch.tensor([[float("nan") if (s := parse_score(text)) is None else s for text in texts]])
    assert format_reward(scores).tolist() == [[1.0, 0.0, 0.0, 0.0]]
