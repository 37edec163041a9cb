"""The captured decode step: tested as far as possible on a CPU, and on CUDA for equal results."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from aes_r1.model import backbone as backbones
from aes_r1.prompts import RATING_PROMPT
from aes_r1.rollout import sampler
from aes_r1.rollout.decode import SharedDecoder
from aes_r1.rollout.graph import WARM_UP, CapturedDecoder, CompiledDecoder, StaticDecoder
from aes_r1.rollout.layers import layer_step
from aes_r1.rollout.sampler import keyed_uniform_noise, sample_completions
from aes_r1.settings import LoraSettings
from tests.conftest import picture
from tests.model.siblings import save_sibling
from tests.pretend_device import DEVICE, PretendDevice

LENGTH, SAMPLES = 20, 4
FAMILIES = ("qwen2_5_vl", "qwen3_vl", "internvl")
SIZES = {"padded": ((192, 192), (224, 160), (96, 200)), "unpadded": ((96, 96), (96, 96))}


class ReplayedDecoder(StaticDecoder):
    """What a CUDA graph is, on a CPU: a token's operations are written down once, then carried out again each token.

    Python runs while they are written down and never after, so whatever it changed from token to token would be missed.
    """

    written = None
    recordings = 0

    def advance(self, token):
        if self.written is None:
            self.written = make_fx(lambda: token())()  # which carries them out, too
            ReplayedDecoder.recordings += 1
        else:
            self.written()

    def keep(self, rows):
        super().keep(rows)
        self.written = None


def counted(decoder):
    class Counted(decoder):
        captures = 0

        def _capture(self, token):
            super()._capture(token)
            Counted.captures += 1

    return Counted


ON_CUDA = pytest.mark.parametrize("decoder", [CapturedDecoder, CompiledDecoder])


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
    keep = SharedDecoder.keep
    monkeypatch.setattr(SharedDecoder, "keep", lambda self, rows: (dropped.append(len(rows)), keep(self, rows)))
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


def with_adapter(backbone):
    backbone = backbones.add_adapter(backbone, LoraSettings(rank=4))
    with torch.no_grad():
        for name, parameter in backbone.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    backbone.model.eval()
    return backbone


@pytest.mark.slow
def test_with_an_adapter(backbone, prompts, monkeypatch):
    backbone = with_adapter(backbone)
    assert_same(
        draw(monkeypatch, backbone, prompts, ReplayedDecoder), draw(monkeypatch, backbone, prompts, SharedDecoder)
    )


@pytest.mark.slow
def test_in_half_precision(backbone, prompts, monkeypatch):
    backbone.model.to(torch.bfloat16).eval()
    # The same operations on the same shapes, so the same bits.
    replayed = draw(monkeypatch, backbone, prompts, ReplayedDecoder)
    assert_same(replayed, draw(monkeypatch, backbone, prompts, StaticDecoder), tolerance=0)
    assert replayed.logps.isfinite().all()


@pytest.mark.slow
@torch.no_grad()
def test_all_layers_and_tokens_are_one_compiled_function(family):
    """No question to the device, no data-dependent shape, nothing in Python that a layer or a token changes."""
    prompts = collated(family, SIZES["padded"])
    plain = StaticDecoder(family.core, prompts, SAMPLES, LENGTH)
    decoder = StaticDecoder(family.core, prompts, SAMPLES, LENGTH)
    torch._dynamo.reset()
    compiled = torch.compile(layer_step, fullgraph=True, backend="eager")
    decoder.layer_step = functools.partial(compiled, **decoder.layer_step.keywords)
    tokens = torch.full((len(prompts) * SAMPLES,), 7)
    held = [decoder.filled, *decoder.keys, *decoder.values]
    addresses = [tensor.data_ptr() for tensor in held]
    assert torch.equal(decoder.step(tokens), plain.step(tokens))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(4):
            assert torch.equal(decoder.step(tokens), plain.step(tokens))
    assert int(decoder.filled) == 5
    assert [tensor.data_ptr() for tensor in held] == addresses


@pytest.mark.parametrize("decoder", [SharedDecoder, StaticDecoder])
@pytest.mark.parametrize("every", [1, 8])
@pytest.mark.slow
def test_one_synchronisation_per_token_or_fewer(family, monkeypatch, decoder, every):
    prompts = collated(family, SIZES["padded"])
    expected = draw(monkeypatch, family, prompts, decoder)

    class Asking(decoder):
        sync_every = every

    with PretendDevice() as device, device.holding(family.model):
        family.banned_on(DEVICE)
        device.waits.clear()
        rollout = draw(monkeypatch, family, prompts, Asking)
        asked = (LENGTH - 1) // every
        if every == 1:
            asked = rollout.tokens.shape[1] - (rollout.tokens.shape[1] == LENGTH)
        assert device.waits == {"aten::_local_scalar_dense": asked + 1}  # and the longest output's length at the end
        assert torch.equal(device.back(rollout.tokens), expected.tokens)
        assert torch.equal(device.back(rollout.mask), expected.mask)
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
@ON_CUDA
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_captured_equals_eager_on_cuda(family, monkeypatch, sizes, decoder):
    prompts = on_cuda(family, collated(family, sizes))
    counting = counted(decoder)
    captured = draw(monkeypatch, family, prompts, counting)
    assert counting.captures == 1
    assert captured.tokens.shape[1] > WARM_UP + 3
    assert_same(captured, draw(monkeypatch, family, prompts, StaticDecoder), tolerance=1e-5)
    assert_same(captured, draw(monkeypatch, family, prompts, SharedDecoder), tolerance=1e-5)


@pytest.mark.gpu
@ON_CUDA
def test_captured_again_when_rows_are_dropped_on_cuda(family, monkeypatch, decoder):
    class Eager(counted(decoder)):
        sync_every = 4

    prompts = on_cuda(family, collated(family, SIZES["padded"]))
    captured = draw(monkeypatch, family, prompts, Eager, samples=80)
    assert Eager.__mro__[1].captures >= 2
    assert_same(captured, draw(monkeypatch, family, prompts, SharedDecoder, samples=80), tolerance=1e-5)


@pytest.mark.gpu
@ON_CUDA
def test_an_adapter_in_half_precision_on_cuda(backbone, prompts, monkeypatch, decoder):
    backbone.model.to(torch.bfloat16)
    backbone = with_adapter(backbone)
    prompts = on_cuda(backbone, prompts)
    backbone.model.eval()
    captured = draw(monkeypatch, backbone, prompts, decoder)
    again = draw(monkeypatch, backbone, prompts, StaticDecoder)
    # Rounding parts a completion from its twin now and then; up to there the numbers are the same.
    together = (captured.tokens == again.tokens).cumprod(dim=1).bool() & captured.mask
    assert together.float().mean() > 0.15
    torch.testing.assert_close(captured.logps[together], again.logps[together], atol=5e-2, rtol=5e-2)


@pytest.mark.gpu
@ON_CUDA
def test_the_graphs_memory_goes_back_on_cuda(backbone, prompts, monkeypatch, decoder):
    prompts = on_cuda(backbone, prompts)
    backbone.model.eval()
    draw(monkeypatch, backbone, prompts, decoder)  # workspaces of the stream stay
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    for _ in range(3):
        draw(monkeypatch, backbone, prompts, decoder)
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() == before
