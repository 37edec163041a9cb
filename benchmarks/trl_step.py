"""Run TRL's GRPOTrainer on the same workload; it waits for the parent before each step.

python -m benchmarks.trl_step WORKLOAD_JSON WORK_FOLDER [plain]

The settings are the fastest that its trainer takes for a model with pictures (see SETTINGS, which the results contain):
fused layers of liger-kernel if that is installed on a GPU (never with `plain`), scaled-dot-product attention, its own
fused head, and as many completions per pass as fit.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    Qwen2_5_VLForConditionalGeneration,
    TrainerCallback,
)
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin
from trl import GRPOConfig, GRPOTrainer

from aes_r1.prompts import RATING_PROMPT, parse_score
from aes_r1.reward.total import total_reward
from aes_r1.settings import RewardSettings
from benchmarks.player import Turn, wait_to_build
from benchmarks.workload import Workload, draw_weights, model_folder

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import LoraConfig

CUDA = torch.cuda.is_available()
LIGER = CUDA and "plain" not in sys.argv[3:] and importlib.util.find_spec("liger_kernel") is not None
SETTINGS = {
    "attention": "sdpa (flash-attn is not installed, and Hub kernels have to be downloaded)",
    "kernels": "liger-kernel: RMSNorm, rotary positions, SwiGLU" if LIGER else "PyTorch's",
    "head": "GRPOTrainer's fused head: log-probabilities tile by tile",
    "generation": (
        "transformers' generate with its cache; GRPOTrainer refuses continuous batching for models with pictures and "
        "switches compilation off (disable_compile=True)"
    ),
    "vllm": "not used: not installed",
}


def complete_liger() -> None:
    """Give liger-kernel (0.8.5) the names that it misses in transformers 5.23, if they are missing.

    It subclasses Qwen2.5-VL's output class, which that version no longer defines. It patches rotary positions under the
    name of an older function and would therefore miss them.
    """
    from transformers.modeling_outputs import CausalLMOutputWithPast
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as theirs

    name = "Qwen2_5_VLCausalLMOutputWithPast"
    setattr(theirs, name, getattr(theirs, name, CausalLMOutputWithPast))
    from liger_kernel.transformers.rope import liger_rotary_pos_emb

    if hasattr(theirs, "apply_rotary_pos_emb"):
        theirs.apply_rotary_pos_emb = liger_rotary_pos_emb


class PictureProcessor(Qwen2_5_VLProcessor):
    """Provide Qwen2.5-VL's processor without its video part, whose dependencies have no CPU build."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def get_attributes(cls):
        return ["image_processor", "tokenizer"]


class ForcedLengths(LogitsProcessor):
    """Force each completion's end of the turn at its last token and nowhere before; a truncated completion has none."""

    def __init__(self, lengths: list[int], limit: int, end_token: int, banned: torch.Tensor) -> None:
        self.ends = torch.tensor([length - 1 if length < limit else limit for length in lengths], device=banned.device)
        self.end_token = end_token
        self.banned = banned.clone()
        self.banned[end_token] = True
        self.step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        ending = self.ends == self.step
        self.step += 1
        scores = scores.masked_fill(self.banned | ending[:, None], float("-inf"))
        scores[:, self.end_token].masked_fill_(ending, 0.0)
        return scores


def force_lengths(turn: Turn, end_token: int, banned: torch.Tensor) -> None:
    """Make transformers' generate draw completions of the turn's lengths, without tokens of `banned` [V]."""
    generate = Qwen2_5_VLForConditionalGeneration.generate

    def forced(self, *inputs, **how):
        lengths = ForcedLengths(turn.lengths, turn.workload.new_tokens, end_token, banned.to(self.device))
        return generate(self, *inputs, logits_processor=LogitsProcessorList([lengths]), **how)

    Qwen2_5_VLForConditionalGeneration.generate = forced


class StampedTrainer(GRPOTrainer):
    turn: Turn

    def _generate(self, prompts):
        self.turn.phase_begins("rollout")
        generated = super()._generate(prompts)
        self.turn.phase_ends("rollout")
        self.turn.rollout_done(lambda: [len(tokens) for tokens in generated[1]])
        return generated

    def _generate_and_score_completions(self, inputs):
        scored = super()._generate_and_score_completions(inputs)
        self.turn.update_begins()
        self.turn.phase_begins("update")
        return scored


class TakeTurns(TrainerCallback):
    def __init__(self, turn: Turn) -> None:
        self.turn = turn

    def on_step_begin(self, args, state, control, **kwargs):
        self.turn.wait()

    def on_step_end(self, args, state, control, **kwargs):
        self.turn.phase_ends("update")
        self.turn.done()


def rewards(prompts, completions, mos, **kwargs) -> list[float]:
    """Compute the same reward as ours over the N x K completions of the step in TRL's order (image by image)."""
    texts = [completion[0]["content"] for completion in completions]
    scores = [parse_score(text) for text in texts]
    samples = sum(1 for value in mos if value == mos[0])
    table = torch.tensor([float("nan") if score is None else score for score in scores]).reshape(-1, samples)
    return total_reward(table, torch.tensor(mos[::samples]), RewardSettings(), progress=0.0)[0].flatten().tolist()


def processor_of(path: Path) -> PictureProcessor:
    """Return the processor of the model in `path`."""
    processor = PictureProcessor(Qwen2VLImageProcessorPil.from_pretrained(path), AutoTokenizer.from_pretrained(path))
    processor.chat_template = processor.tokenizer.chat_template
    return processor


def training_data(workload: Workload, work: Path) -> Dataset:
    """Return the prompts, pictures and opinions of four steps, as GRPOTrainer reads them."""
    from datasets import Dataset, Image

    paths = workload.pictures(work / "pictures", workload.N * 4)
    return Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": RATING_PROMPT}] for _ in paths],
            "image": [str(file) for file in paths],
            "mos": [i / len(paths) for i in range(len(paths))],
        }
    ).cast_column("image", Image())


def banned_tokens(path: Path, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Return which tokens of the model in `path` no completion may have, [V] bool: special and unused ones."""
    banned = torch.zeros(AutoConfig.from_pretrained(path).get_text_config().vocab_size, dtype=torch.bool)
    banned[tokenizer.all_special_ids] = True
    banned[len(tokenizer) :] = True
    return banned


def adapter_of(workload: Workload) -> LoraConfig | None:
    """Return the adapter that is trained; None for a workload without one."""
    if not workload.lora:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=workload.lora,
        lora_alpha=32,
        target_modules=r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
        task_type="CAUSAL_LM",
    )


def config_of(workload: Workload, folder: str) -> GRPOConfig:
    """Return the settings of GRPOTrainer for the workload; `folder` is where it would write."""
    micro = workload.micro_batch or workload.rows
    return GRPOConfig(
        output_dir=folder,
        max_steps=10**6,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=workload.rows // micro,
        num_generations=workload.K,
        max_completion_length=workload.new_tokens,
        generation_kwargs={"suppress_tokens": None},  # ForcedLengths bans them and more
        temperature=1.0,
        top_k=0,
        beta=workload.kl_coef,
        epsilon=0.2,
        epsilon_high=0.28,
        loss_type="grpo",
        gradient_checkpointing=workload.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        use_liger_kernel=LIGER,
        bf16=CUDA and workload.dtype == "bfloat16",
        use_cpu=not CUDA,
        model_init_kwargs={"dtype": workload.dtype, "attn_implementation": "sdpa"},
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )


def main() -> None:
    workload, work = Workload.parse(sys.argv[1]), Path(sys.argv[2])
    wait_to_build(SETTINGS)
    draw_weights()
    if LIGER:
        complete_liger()
    path = model_folder(workload, work)
    processor, data = processor_of(path), training_data(workload, work)
    banned, adapter = banned_tokens(path, processor.tokenizer), adapter_of(workload)
    turn = Turn(workload)
    force_lengths(turn, processor.tokenizer.eos_token_id, banned)
    with tempfile.TemporaryDirectory() as folder:
        trainer = StampedTrainer(
            model=str(path),
            reward_funcs=rewards,
            args=config_of(workload, folder),
            train_dataset=data,
            processing_class=processor,
            peft_config=adapter,
            callbacks=[TakeTurns(turn)],
        )
        trainer.turn = turn
        for name, parameter in trainer.model.named_parameters():
            if ".visual." in name:
                parameter.requires_grad_(workload.trains_tower)
        trainer.train()


if __name__ == "__main__":
    main()
