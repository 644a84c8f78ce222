"""Loads an exported model with transformers, as its users would, and continues a prompt.

example:
  python examples/quickstart/generate.py runs/quickstart/export "Patients with"
"""

import argparse

from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder written by tools/convert_checkpoint.py to-hf")
    parser.add_argument("prompt")
    parser.add_argument("--max-new-tokens", type=int, default=48, help="[default: %(default)s]")
    arguments = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model)
    inputs = tokenizer(arguments.prompt, return_tensors="pt", return_token_type_ids=False)
    ids = model.generate(**inputs, max_new_tokens=arguments.max_new_tokens, do_sample=False)
    print(tokenizer.decode(ids[0], skip_special_tokens=True))


if __name__ == "__main__":
    main()
