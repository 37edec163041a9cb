"""TRL's GRPOTrainer on the same workload, told by the parent when to take the next step.

python -m benchmarks.trl_step WORKLOAD_JSON WORK_FOLDER
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoTokenizer, TrainerCallback
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin
from trl import GRPOConfig, GRPOTrainer

from aes_r1.prompts import RATING_PROMPT, parse_score
from aes_r1.reward.total import total_reward
from aes_r1.settings import RewardSettings
from benchmarks.player import Turn
from benchmarks.workload import Workload, random_model


class PictureProcessor(Qwen2_5_VLProcessor):
    """Qwen2.5-VL's processor without its video part, whose dependencies have no CPU build."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def get_attributes(cls):
        return ["image_processor", "tokenizer"]


class StampedTrainer(GRPOTrainer):
    turn: Turn

    def _generate(self, prompts):
        generated = super()._generate(prompts)
        self.turn.rollout_done()
        return generated

    def _generate_and_score_completions(self, inputs):
        scored = super()._generate_and_score_completions(inputs)
        self.turn.update_begins()
        return scored


class TakeTurns(TrainerCallback):
    def __init__(self, turn: Turn) -> None:
        self.turn = turn

    def on_step_begin(self, args, state, control, **kwargs):
        self.turn.wait()

    def on_step_end(self, args, state, control, **kwargs):
        self.turn.done()


def rewards(prompts, completions, mos, **kwargs) -> list[float]:
    """The same reward as ours, over the N x K completions of the step in TRL's order (image by image)."""
    texts = [completion[0]["content"] for completion in completions]
    scores = [parse_score(text) for text in texts]
    samples = sum(1 for value in mos if value == mos[0])
    table = torch.tensor([float("nan") if score is None else score for score in scores]).reshape(-1, samples)
    return total_reward(table, torch.tensor(mos[::samples]), RewardSettings(), progress=0.0)[0].flatten().tolist()


def main() -> None:
    workload, work = Workload.parse(sys.argv[1]), Path(sys.argv[2])
    from datasets import Dataset, Image

    path = random_model(workload, work)
    processor = PictureProcessor(Qwen2VLImageProcessorPil.from_pretrained(path), AutoTokenizer.from_pretrained(path))
    processor.chat_template = processor.tokenizer.chat_template
    paths = workload.pictures(work / "pictures", workload.N * 4)
    data = Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": RATING_PROMPT}] for _ in paths],
            "image": [str(file) for file in paths],
            "mos": [i / len(paths) for i in range(len(paths))],
        }
    ).cast_column("image", Image())
    tokenizer = processor.tokenizer
    vocabulary = config_vocabulary(path)
    banned = sorted({*tokenizer.all_special_ids, *range(len(tokenizer), vocabulary)})  # the end of the turn too
    micro = workload.micro_batch or workload.rows
    cuda = torch.cuda.is_available()
    peft = None
    if workload.lora:
        from peft import LoraConfig

        peft = LoraConfig(
            r=workload.lora,
            lora_alpha=32,
            target_modules=r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
            task_type="CAUSAL_LM",
        )
    turn = Turn()
    with tempfile.TemporaryDirectory() as folder:
        trainer = StampedTrainer(
            model=str(path),
            reward_funcs=rewards,
            args=GRPOConfig(
                output_dir=folder,
                max_steps=10**6,
                learning_rate=1e-6,
                lr_scheduler_type="constant",
                per_device_train_batch_size=micro,
                gradient_accumulation_steps=workload.rows // micro,
                num_generations=workload.K,
                max_completion_length=workload.new_tokens,
                generation_kwargs={"suppress_tokens": banned},
                temperature=1.0,
                top_k=0,
                beta=workload.kl_coef,
                epsilon=0.2,
                epsilon_high=0.28,
                loss_type="grpo",
                gradient_checkpointing=workload.gradient_checkpointing,
                bf16=cuda and workload.dtype == "bfloat16",
                use_cpu=not cuda,
                model_init_kwargs={"dtype": workload.dtype},
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=data,
            processing_class=processor,
            peft_config=peft,
            callbacks=[TakeTurns(turn)],
        )
        trainer.turn = turn
        trainer.train()


def config_vocabulary(path: Path) -> int:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(path).get_text_config().vocab_size


if __name__ == "__main__":
    main()
