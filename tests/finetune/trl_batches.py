"""TRL's trainers over a tiny Llama, so that a batch's loss and gradient can be asked of them."""

import contextlib
import os
import tempfile
import warnings
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ("<s>", "</s>", "<unk>", "<user>", "<assistant>", *(chr(97 + i) for i in range(26)))
TEMPLATE = (
    "<s> {% for m in messages %}{% if m.role == 'user' %}<user> {{ m.content }} {% else %}"
    "<assistant> {{ m.content }} </s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
ANSWERS = [("a b c", "d e f g", "h"), ("q", "x y", "z z a b"), ("k l", "m n o p q r", "s t")]


def word_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_llama(seed: int, spread: float = 0.1) -> LlamaForCausalLM:
    """A model whose weights are wide enough that losses differ from their value at the start."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            initializer_range=spread,
            attn_implementation="eager",
        )
    )


def said(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def pair_rows() -> list[dict[str, Any]]:
    return [
        {
            "prompt": said("user", prompt),
            "chosen": said("assistant", chosen),
            "rejected": said("assistant", rejected),
        }
        for prompt, chosen, rejected in ANSWERS
    ]


def unpaired_rows() -> list[dict[str, Any]]:
    return [
        {
            "prompt": said("user", prompt),
            "completion": said("assistant", answers[number % 2]),
            "label": number % 2 == 0,
        }
        for number, (prompt, *answers) in enumerate(ANSWERS)
    ]


@contextlib.contextmanager
def quiet() -> Any:
    """TRL warns about what it will drop, and draws progress bars."""
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:  # noqa: PTH123
        warnings.simplefilter("ignore")
        with contextlib.redirect_stderr(nowhere):
            yield


def settings(**options: Any) -> dict[str, Any]:
    """For a trainer that never trains; its folder is made in any case, and stays empty."""
    kept = {"report_to": [], "use_cpu": True, "max_length": None}
    return {"output_dir": tempfile.gettempdir(), **kept, **options}


def collated(trainer: Any) -> dict[str, torch.Tensor]:
    """All rows of the trainer's data as one batch."""
    data = trainer.train_dataset
    return trainer.data_collator([data[number] for number in range(len(data))])


def answer_logps(
    model: torch.nn.Module, tokens: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed log p of the masked tokens of each row, and their number; [rows]."""
    logits = model(input_ids=tokens).logits[:, :-1]
    logps = logits.log_softmax(-1).gather(2, tokens[:, 1:, None])[..., 0]
    mask = mask[:, 1:].to(logps.dtype)
    return (logps * mask).sum(1), mask.sum(1)


def gradient(model: torch.nn.Module, loss: torch.Tensor) -> torch.Tensor:
    """Of every parameter in one vector."""
    parts = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    kept = zip(parts, model.parameters(), strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in kept])
