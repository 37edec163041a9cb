"""The captured decode step: tested as far as possible on a CPU, and on CUDA for equal results."""

from __future__ import annotations

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from aes_r1.model import backbone as backbones
from aes_r1.prompts import RATING_PROMPT
from aes_r1.rollout import sampler
from aes_r1.rollout.decode import SharedDecoder
from aes_r1.rollout.graph import WARM_UP, CapturedDecoder, StaticDecoder
from aes_r1.rollout.sampler import keyed_uniform_noise, sample_completions
from aes_r1.settings import LoraSettings
from tests.conftest import picture
from tests.model.siblings import save_sibling
from tests.pretend_device import DEVICE, PretendDevice

LENGTH, SAMPLES = 20, 4
FAMILIES = ("qwen2_5_vl", "qwen3_vl", "internvl")
SIZES = {"padded": ((192, 192), (224, 160), (96, 200)), "unpadded": ((96, 96), (96, 96))}


class ReplayedDecoder(StaticDecoder):
    """What a CUDA graph is, on a CPU: the step's operations are written down once, then carried out again each token.

    Python runs while they are written down and never after, so whatever it changed from token to token would be missed.
    """

    written = None
    recordings = 0

    def advance(self):
        if self.written is None:
            step = super().advance
            self.written = make_fx(lambda: step())()
            ReplayedDecoder.recordings += 1
            self.cache.filled -= 1  # writing down carries out, which a capture does not
        return self.written()

    def keep(self, rows):
        super().keep(rows)
        self.written = None


class CountedDecoder(CapturedDecoder):
    captures = 0

    def _capture(self):
        super()._capture()
        CountedDecoder.captures += 1


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    folder = save_sibling(request.param, tmp_path_factory.mktemp(request.param))
    backbone = backbones.load(folder, dtype="float32", max_pixels=9216, gradient_checkpointing=True)
    backbone.model.eval()
    with torch.no_grad():  # a likely end of the turn, so that rows are dropped during decoding
        state = SharedDecoder(backbone.core, collated(backbone, SIZES["padded"]), 1, 1).after_prompt.mean(dim=0)
        head = backbone.core.lm_head.weight
        likely = (head @ state).logsumexp(dim=0) - 2.5
        head[backbone.end_token] = state * likely / state.square().sum()
    return backbone


def collated(backbone, sizes):
    questions = (RATING_PROMPT, f"{RATING_PROMPT} Be brief.", RATING_PROMPT) if len(sizes) == 3 else [RATING_PROMPT] * 2
    asked = enumerate(zip(sizes, questions, strict=True))
    encoded = [backbone.encode(picture(*size, seed=i), q) for i, (size, q) in asked]
    prompts = backbone.collate(encoded)
    assert prompts.padded == (len(sizes) == 3)
    return prompts


def draw(monkeypatch, backbone, prompts, decoder, samples=SAMPLES, temperature=0.8):
    monkeypatch.setattr(sampler, "_decoder_of", lambda _: decoder)
    noise = keyed_uniform_noise([("graph", row) for row in range(len(prompts) * samples)], LENGTH)
    return sample_completions(
        backbone, prompts, num_samples=samples, max_new_tokens=LENGTH, temperature=temperature, noise=noise
    )  # fmt: skip


def assert_same(one, other, tolerance=1e-6):
    assert torch.equal(one.tokens, other.tokens)
    assert torch.equal(one.mask, other.mask)
    torch.testing.assert_close(one.logps, other.logps, atol=tolerance, rtol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decoder", "padding"), [(StaticDecoder, "padded"), (StaticDecoder, "unpadded"), (ReplayedDecoder, "padded")]
)
def test_the_static_step_is_the_dynamic_one(family, monkeypatch, decoder, padding):
    prompts = collated(family, SIZES[padding])
    dropped = []
    monkeypatch.setattr(SharedDecoder, "keep", lambda self, rows: (dropped.append(len(rows)), self.cache.keep(rows)))
    dynamic = draw(monkeypatch, family, prompts, SharedDecoder)
    kept = list(dropped)
    assert len(kept) > (padding == "padded")
    before = ReplayedDecoder.recordings
    static = draw(monkeypatch, family, prompts, decoder)
    assert dropped == kept * 2
    if decoder is ReplayedDecoder:
        assert ReplayedDecoder.recordings - before in (len(kept), len(kept) + 1)  # one for each number of rows
    # Sums over hidden places add zeros in another order.
    assert_same(static, dynamic)


def test_with_an_adapter(backbone, prompts, monkeypatch):
    backbone = backbones.add_adapter(backbone, LoraSettings(rank=4))
    with torch.no_grad():
        for name, parameter in backbone.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    backbone.model.eval()
    assert_same(
        draw(monkeypatch, backbone, prompts, ReplayedDecoder), draw(monkeypatch, backbone, prompts, SharedDecoder)
    )


def test_in_half_precision(backbone, prompts, monkeypatch):
    backbone.model.to(torch.bfloat16).eval()
    # The same operations on the same shapes, so the same bits.
    replayed = draw(monkeypatch, backbone, prompts, ReplayedDecoder)
    assert_same(replayed, draw(monkeypatch, backbone, prompts, StaticDecoder), tolerance=0)
    assert replayed.logps.isfinite().all()


def test_what_memory_held_before_does_not_show(family, monkeypatch):
    prompts = collated(family, SIZES["padded"])
    plain = draw(monkeypatch, family, prompts, StaticDecoder)

    class Dirty(StaticDecoder):
        def _new_cache(self, *sizes):
            new_empty = torch.Tensor.new_empty
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(torch.Tensor, "new_empty", lambda *given: new_empty(*given).fill_(float("nan")))
                return super()._new_cache(*sizes)

    assert_same(draw(monkeypatch, family, prompts, Dirty), plain, tolerance=0)


@pytest.mark.slow
@torch.no_grad()
def test_the_step_is_one_graph_for_every_token(family):
    """No question to the device, no data-dependent shape, nothing in Python that a token changes."""
    prompts = collated(family, SIZES["padded"])
    decoder, rows = StaticDecoder(family.core, prompts, SAMPLES, LENGTH), len(prompts) * SAMPLES
    torch._dynamo.reset()
    step = torch.compile(decoder.advance, fullgraph=True, backend="eager")
    held = [decoder.tokens, decoder.positions, decoder.cache.filled, *decoder.cache.keys, *decoder.cache.values]
    addresses = [tensor.data_ptr() for tensor in held]
    with torch._dynamo.config.patch(error_on_recompile=True):
        for token in range(5, 10):
            decoder.tokens.fill_(token)
            decoder.positions.add_(1)
            assert step().shape == (rows, family.core.config.get_text_config().hidden_size)
    assert int(decoder.cache.filled) == 5
    assert [tensor.data_ptr() for tensor in held] == addresses


@pytest.mark.parametrize("decoder", [SharedDecoder, StaticDecoder])
def test_one_question_to_the_device_per_token(family, monkeypatch, decoder):
    prompts = collated(family, SIZES["padded"])
    expected = draw(monkeypatch, family, prompts, decoder)
    with PretendDevice() as device, device.holding(family.model):
        family.banned_on(DEVICE)
        device.waits.clear()
        rollout = draw(monkeypatch, family, prompts, decoder)
        length = rollout.tokens.shape[1]
        assert device.waits == {"aten::_local_scalar_dense": length + 1}  # and the longest output's length at the end
        assert torch.equal(device.back(rollout.tokens), expected.tokens)
        family.banned_on(torch.device("cpu"))


def test_rows_are_dropped_when_it_pays():
    worth = CapturedDecoder.worth_dropping
    assert not worth(None, 63, 64)  # eight images by eight outputs: never, the last ones end alone
    assert not worth(None, 63, 126)
    assert worth(None, 64, 128)
    assert not worth(None, 100, 256)
    captures, rows = 1, 512
    for ended_in_all in range(512):  # one after the other
        if worth(None, ended_in_all - (512 - rows), rows):
            rows, captures = 512 - ended_in_all, captures + 1
    assert captures == 4  # 512, 256, 128 and 64 rows


def on_cuda(backbone, prompts):
    backbone.model.to("cuda")
    return prompts.to("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_captured_equals_eager_on_cuda(family, monkeypatch, sizes):
    prompts = on_cuda(family, collated(family, sizes))
    CountedDecoder.captures = 0
    captured = draw(monkeypatch, family, prompts, CountedDecoder)
    assert CountedDecoder.captures == 1
    assert captured.tokens.shape[1] > WARM_UP + 3
    assert_same(captured, draw(monkeypatch, family, prompts, StaticDecoder), tolerance=1e-5)
    assert_same(captured, draw(monkeypatch, family, prompts, SharedDecoder), tolerance=1e-5)


@pytest.mark.gpu
def test_captured_again_when_rows_are_dropped_on_cuda(family, monkeypatch):
    prompts = on_cuda(family, collated(family, SIZES["padded"]))
    CountedDecoder.captures = 0
    captured = draw(monkeypatch, family, prompts, CountedDecoder, samples=80)
    assert CountedDecoder.captures >= 2
    assert_same(captured, draw(monkeypatch, family, prompts, SharedDecoder, samples=80), tolerance=1e-5)


@pytest.mark.gpu
def test_an_adapter_in_half_precision_on_cuda(backbone, prompts, monkeypatch):
    backbone.model.to(torch.bfloat16)
    backbone = backbones.add_adapter(backbone, LoraSettings(rank=4))
    prompts = on_cuda(backbone, prompts)
    backbone.model.eval()
    captured = draw(monkeypatch, backbone, prompts, CapturedDecoder)
    assert_same(captured, draw(monkeypatch, backbone, prompts, StaticDecoder), tolerance=1e-2)


@pytest.mark.gpu
def test_the_graphs_memory_goes_back_on_cuda(backbone, prompts, monkeypatch):
    prompts = on_cuda(backbone, prompts)
    backbone.model.eval()
    draw(monkeypatch, backbone, prompts, CapturedDecoder)  # workspaces of the stream stay
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    for _ in range(3):
        draw(monkeypatch, backbone, prompts, CapturedDecoder)
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() == before
