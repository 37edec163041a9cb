"""perf/mfu: the model's operations over what the card could do."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from aes_r1.model import backbone as backbones
from aes_r1.model import cost
from aes_r1.model.cards import Card
from aes_r1.settings import LoraSettings
from aes_r1.trainer.single_engine import SingleEngine
from aes_r1.trainer.utilisation import Utilisation
from tests.conftest import picture
from tests.trainer.cold_starts import engine_of

CARD = Card(tflops=1e-3, gb_s=1.0)  # a billion operations a second
LENGTHS = [3, 5, 1, 1]  # two answers for each of two images


@pytest.fixture
def prompts(backbone):
    return backbone.collate([backbone.encode(picture(*size, seed=1), "Rate.") for size in ((96, 96), (48, 96))])


@pytest.mark.slow
def test_operations_by_real_lengths_over_peak_and_seconds(backbone, prompts):
    """Written out: prompts once per image, answers after them, 2 operations a weight and token, the gradient twice."""
    found = Utilisation(backbone, engine_of(backbone), shared_prefix=True, card=CARD)
    shape, total = cost.shape_of(backbone.core.config), 0.0
    for prompt, rows, answers in zip(prompts.prompt_tokens, prompts.pixel_rows, ([3, 5], [1, 1]), strict=True):
        total += cost.language_flops(shape, prompt, prompt * (prompt + 1) / 2, 0)
        seen = sum(answer * prompt + answer * (answer + 1) / 2 for answer in answers)
        total += cost.language_flops(shape, sum(answers), seen, sum(answers))
        total += cost.vision_flops(shape, rows / 4)
    assert found.metrics(prompts, LENGTHS, 1, 2.0) == {"perf/mfu": pytest.approx(3 * total / 1e9 / 2.0, rel=1e-5)}
    assert found.metrics(prompts, LENGTHS, 2, 2.0)["perf/mfu"] == pytest.approx(3 * total / 1e9, rel=1e-5)


@pytest.mark.slow
def test_a_prompt_per_output_counts_as_often(backbone, prompts):
    engine = engine_of(backbone)
    shared, plain = (Utilisation(backbone, engine, shared_prefix=one, card=CARD) for one in (True, False))
    assert plain.metrics(prompts, LENGTHS, 1, 1.0)["perf/mfu"] > shared.metrics(prompts, LENGTHS, 1, 1.0)["perf/mfu"]


@pytest.mark.slow
def test_an_adapter_needs_no_gradient_of_the_weights(backbone, prompts):
    whole = Utilisation(backbone, engine_of(backbone), shared_prefix=True, card=CARD)
    adapted = backbones.add_adapter(backbone, LoraSettings(rank=2))
    fixed = Utilisation(adapted, engine_of(adapted), shared_prefix=True, card=CARD)
    shape, before = whole.shape, whole.metrics(prompts, LENGTHS, 1, 1.0)["perf/mfu"]
    vision = sum(cost.vision_flops(shape, rows / 4) for rows in prompts.pixel_rows)
    after = fixed.metrics(prompts, LENGTHS, 1, 1.0)["perf/mfu"]
    assert after == pytest.approx(2 / 3 * (before - 3 * vision / 1e9), rel=1e-5)


@pytest.mark.slow
def test_there_is_no_utilisation_without_a_peak(backbone, prompts):
    assert Utilisation(backbone, engine_of(backbone), shared_prefix=True).metrics(prompts, LENGTHS, 1, 1.0) == {}


@pytest.mark.slow
def test_several_processes_add_up(backbone, prompts):
    """Two processes that do the same in the same time use their two cards as well as one does."""

    class Two(SingleEngine):
        size = 2

        def all_reduce_sum(self, value):
            return 2 * value

    two = Two(backbone.model, weight_decay=0.0, max_grad_norm=1.0, device=backbone.device)
    one = Utilisation(backbone, engine_of(backbone), shared_prefix=True, card=CARD)
    both = Utilisation(backbone, two, shared_prefix=True, card=dataclasses.replace(CARD))
    assert both.metrics(prompts, LENGTHS, 1, 1.0) == pytest.approx(one.metrics(prompts, LENGTHS, 1, 1.0))


@pytest.mark.slow
def test_one_card_without_a_known_peak_keeps_nobody_waiting(backbone, prompts):
    """Every process takes part in the sum, and all say the same: nothing."""
    called = []

    class Other(SingleEngine):
        size = 2

        def all_reduce_sum(self, value):
            called.append(value.clone())
            return value + torch.tensor([1.0, 0.0, 1.0])  # the other process knows no peak

    for card in (CARD, None):
        engine = Other(backbone.model, weight_decay=0.0, max_grad_norm=1.0, device=backbone.device)
        assert Utilisation(backbone, engine, shared_prefix=True, card=card).metrics(prompts, LENGTHS, 1, 1.0) == {}
    assert len(called) == 2


@pytest.mark.slow
def test_unlike_cards_count_with_their_own_peaks(backbone, prompts):
    class Other(SingleEngine):
        size = 2

        def all_reduce_sum(self, value):
            return value * torch.tensor([2.0, 4.0, 1.0])  # the other card is three times as fast

    engine = Other(backbone.model, weight_decay=0.0, max_grad_norm=1.0, device=backbone.device)
    mixed = Utilisation(backbone, engine, shared_prefix=True, card=CARD).metrics(prompts, LENGTHS, 1, 1.0)
    alone = Utilisation(backbone, engine_of(backbone), shared_prefix=True, card=CARD).metrics(prompts, LENGTHS, 1, 1.0)
    assert mixed["perf/mfu"] == pytest.approx(alone["perf/mfu"] / 2)
