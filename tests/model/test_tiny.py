from __future__ import annotations


def test_about_a_million_parameters(backbone):
    assert 0.8e6 < backbone.model.num_parameters() < 1.6e6
    assert type(backbone.model).__name__ == "Qwen2_5_VLForConditionalGeneration"


def test_each_digit_is_a_token(tokenizer):
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("<answer>0.87</answer>")["input_ids"])
    assert [piece for piece in pieces if piece.isdigit()] == ["0", "8", "7"]


def test_chat_template_asks_and_leaves_the_answer_open(tokenizer):
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How bright?"}]}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>How bright?<|im_end|>\n<|im_start|>assistant\n"
    )
