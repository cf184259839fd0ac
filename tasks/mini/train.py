"""Train the mini suite's chat model from nothing, on the mini suite's train split alone.

Run ``python tasks/mini/train.py``; it takes a few minutes on two cores and writes ``pocketlm/``. The model is
a Llama of about two million parameters that answers the suite's prompts. It is kept half-trained on
purpose: a model that recites its sentences would leave steering nothing to help or to harm.
Equal versions, seeds and thread counts give equal files.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from harness.data.corpus import Corpus
from harness.data.sources import LocalData
from harness.data.suite import Suite, load_suite
from harness.methods.contract import PromptContext

HERE = Path(__file__).parent
VOCABULARY = 4000
STEPS = 850
BATCH = {"zero-shot": 32, "few-shot": 8}  # few-shot prompts are long: batches of like length
PEAK_RATE = 3e-3
FEW_SHOT_SHARE = 0.25
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "<|assistant|>{{ m['content'] }}{{ eos_token }}{% else %}<|user|>{{ m['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with the four special tokens and a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=special[3:],
        padding_side="left",
        chat_template=TEMPLATE,
    )


def model_config() -> LlamaConfig:
    """Return the architecture: 4 layers of 192, tied embeddings."""
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=448,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


class Examples:
    """Prompt and answer pairs of every language, task and label of the train split."""

    def __init__(self, suite: Suite, draw: random.Random) -> None:
        corpus = Corpus(suite, LocalData(HERE / "data"))
        self.draw = draw
        self.rows = [
            (suite.task(task, language), row)
            for task in suite.tasks
            for language in suite.languages
            for row in corpus.split(task, language, "train")
        ]
        self.groups: dict[tuple[str, str, str], list[str]] = {}
        for task, row in self.rows:
            self.groups.setdefault((task.name, task.language, row.label), []).append(row.text)
        self.suite = suite

    def sample(self, setting: str) -> tuple[str, str]:
        """Return one prompt of the setting and its human answer."""
        task, row = self.draw.choice(self.rows)
        shots = []
        if setting == "few-shot":
            others = [t for t in self.groups[task.name, task.language, row.label] if t != row.text]
            shots = self.draw.sample(others, self.suite.few_shot.shots)
        size = self.suite.tasks[task.name].texts_per_label
        context = PromptContext(self.suite, task, setting, 0, size, row.label, tuple(shots))
        return context.suite_prompt().user, row.text


def batch_of(examples: Examples, tokenizer: PreTrainedTokenizerFast) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids, attention mask and labels [batch, longest]; only answers carry a loss."""
    setting = "few-shot" if examples.draw.random() < FEW_SHOT_SHARE else "zero-shot"
    rows = []
    for _ in range(BATCH[setting]):
        prompt, answer = examples.sample(setting)
        turns = [{"role": "user", "content": prompt}]
        head = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        head_ids = tokenizer(head, add_special_tokens=False)["input_ids"]
        tail_ids = tokenizer(answer + "</s>", add_special_tokens=False)["input_ids"]
        rows.append((head_ids, tail_ids))
    width = max(len(head) + len(tail) for head, tail in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), -100)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, (head, tail) in enumerate(rows):
        length = len(head) + len(tail)
        ids[i, :length] = torch.tensor(head + tail)
        labels[i, len(head) : length] = torch.tensor(tail)
        mask[i, :length] = 1
    return ids, mask, labels


def train(steps: int, seed: int, out: Path) -> None:
    """Train for ``steps`` and write tokenizer and float16 weights to ``out``."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    suite = load_suite(str(HERE.parent / "mini.yaml"))
    examples = Examples(suite, draw)
    prompts = [examples.sample("few-shot")[0] for _ in range(300)]
    english = [row.text for row in LocalData(HERE / "data").parallel("en")]
    tokenizer = train_tokenizer([row.text for _, row in examples.rows] + prompts + english)
    model = LlamaForCausalLM(model_config())
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens")
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.1)
    warmup = max(1, min(100, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda t: min((t + 1) / warmup, 0.5 * (1 + math.cos(math.pi * t / steps)) + 0.02),
    )
    started = time.time()
    for step in range(steps):
        ids, mask, labels = batch_of(examples, tokenizer)
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps - 1:
            print(
                f"step {step:5d}  loss {loss.item():.3f}  {time.time() - started:5.0f} s",
                flush=True,
            )
    model.to(torch.float16).save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the mini suite's chat model.")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "pocketlm")
    arguments = parser.parse_args()
    train(arguments.steps, arguments.seed, arguments.out)
