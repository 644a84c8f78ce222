"""Loads an exported model with transformers, as its users would, and continues a prompt.

examples:
  python examples/quickstart/generate.py runs/quickstart/export "Patients with"
  python examples/quickstart/generate.py runs/quickstart/assistant --chat "What is cardelumab?"
"""

import argparse

from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder written by tools/convert_checkpoint.py to-hf")
    parser.add_argument("prompt")
    parser.add_argument("--chat", action="store_true", help="answer the prompt as its assistant")
    parser.add_argument("--max-new-tokens", type=int, default=48, help="[default: %(default)s]")
    arguments = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model)
    if arguments.chat:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": arguments.prompt}],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
        start = inputs["input_ids"].shape[1]  # only the answer is shown
    else:
        inputs, start = tokenizer(arguments.prompt, return_tensors="pt"), 0
    inputs.pop("token_type_ids", None)
    ids = model.generate(**inputs, max_new_tokens=arguments.max_new_tokens, do_sample=False)
    print(tokenizer.decode(ids[0][start:], skip_special_tokens=True))


if __name__ == "__main__":
    main()
