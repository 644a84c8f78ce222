import random

import pytest

from megatron_biollm.generation.text_stream import REPLACEMENT, TextStream

TEXTS = [
    "Patients with hepatitis were treated.",
    "  leading,  double  and trailing  ",
    "line\n\nend\r\n\ttab",
    "≥ 3 µg/mL, naïve café e\u0301 ½ ﬁ",
    "東京 🧬🧬 \u00a0x\u2009y \u200b z",
]


def pieces(tokenizer, prompt, ids):
    stream = TextStream(tokenizer, prompt)
    return [*(stream.add(token) for token in ids), stream.finish()]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_make_the_text_wherever_the_prompt_ends(tokenizer, text):
    ids = tokenizer.encode(text)
    whole = tokenizer.decode(ids)
    assert len(ids) > 5
    for cut in range(len(ids)):
        if tokenizer.decode(ids[:cut]).endswith(REPLACEMENT):
            continue  # the prompt itself ends inside a character
        found = pieces(tokenizer, ids[:cut], ids[cut:])
        assert tokenizer.decode(ids[:cut]) + "".join(found) == whole
        assert not any(REPLACEMENT in piece for piece in found)


def test_text_comes_with_its_token(tokenizer):
    ids = tokenizer.encode("Patients with hepatitis")
    found = pieces(tokenizer, ids[:1], ids[1:])
    assert all(found[:-1]) and found[-1] == ""


def test_bytes_that_make_no_character_come_at_the_end(tokenizer):
    ids = tokenizer.encode("so 東")
    found = pieces(tokenizer, ids[:1], ids[1:-1])
    assert found[-1].strip(REPLACEMENT) == "" and found[-1]


def test_a_special_token_loses_no_space(tokenizer):
    one, two = tokenizer.encode("the cells of"), tokenizer.encode("the liver")
    found = pieces(tokenizer, one, [tokenizer.bos, *two])
    assert "".join(found) == " the liver"


def test_any_ids_give_the_text_of_all_of_them(tokenizer):
    dice = random.Random(4)
    for _ in range(20):
        ids = [dice.randrange(260, tokenizer.vocab_size) for _ in range(30)]
        prompt, rest = ids[:4], ids[4:]
        text = tokenizer.decode(prompt) + "".join(pieces(tokenizer, prompt, rest))
        assert text == tokenizer.decode(ids)
