import csv
import gzip
import io
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.data.encode import EncodeOptions
from megatron_biollm.data.preprocess import preprocess
from megatron_biollm.data.sidecar import read_sidecar
from megatron_biollm.data.verify import verify_prefix
from megatron_biollm.tokenizer.manifest import TokenizerManifest
from megatron_biollm.tokenizer.sentences import load_punkt
from megatron_biollm.tokenizer.tokenizer import build_tokenizer

TOOL = Path(__file__).parents[2] / "tools" / "preprocess_data.py"
REAL = (
    Path(__file__).parents[2].parent
    / "shared/data/corpus/pubmed/asreview_Cohen2006_SkeletalMuscleRelaxants.csv.gz"
)
ODD_TEXTS = [
    "",
    "  two  spaces, a\ttab\r\nand a line end\n",
    "東京 naïve β-catenin \u0000 \U0001f9ec e\u0301",
    "</s> and <s> written in a text",
    ["First sentence.", "", "Second one."],
    "x" * 3000,
]


def write_lines(path, texts):
    lines = (json.dumps({"text": text, "id": n}, ensure_ascii=n % 2 == 0) for n, text in
             enumerate(texts))  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def expected(texts, tokenizer, partitions=1):
    """Documents as Megatron-LM makes them: dealt to the partitions, empty texts without EOD."""
    documents = []
    for text in texts:
        sentences = text if isinstance(text, list) else [text]
        document = [ids for ids in map(tokenizer.encode, sentences) if ids]
        if document:
            document[-1] = [*document[-1], tokenizer.eod]
        documents.append(document)
    return [document for part in range(partitions) for document in documents[part::partitions]]


def run(source, output, config, **options):
    return preprocess(
        EncodeOptions(source, str(output), append_eod=True, **options), build_tokenizer(config)
    )


def read_both(prefix):
    return tuple(Path(f"{prefix}_text_document.{s}").read_bytes() for s in ("bin", "idx"))


@pytest.mark.parametrize(
    ("kind", "workers", "partitions", "keep_sequential"),
    [
        ("hugging_face_model", 1, 1, False),
        ("hugging_face_model", 1, 3, False),
        ("sentencepiece_model", 1, 1, False),
        ("sentencepiece_model", 2, 1, False),
        ("sentencepiece_model", 2, 2, False),
        ("sentencepiece_model", 1, 3, True),
    ],
)
def test_the_bytes_are_megatrons(
    tmp_path, request, spelled_out, kind, workers, partitions, keep_sequential
):
    config = request.getfixturevalue(kind)
    texts = [f"Case {n}: IL-{n % 40} was {n / 7:.3f} µg/mL." for n in range(1500)] + ODD_TEXTS
    run(
        write_lines(tmp_path / "in.jsonl", texts),
        tmp_path / "out",
        config,
        workers=workers,
        partitions=partitions,
        keep_sequential_samples=keep_sequential,
    )
    order = 1 if keep_sequential else partitions
    documents = expected(texts, build_tokenizer(config), order)
    assert read_both(tmp_path / "out") == spelled_out(documents)
    assert verify_prefix(str(tmp_path / "out_text_document")).fine


@pytest.mark.skipif(
    not REAL.is_file(), reason="the shared sample corpus is not beside the checkout"
)
def test_the_bytes_are_megatrons_on_real_abstracts(tmp_path, spelled_out, hugging_face_model):
    content = gzip.decompress(REAL.read_bytes()).decode("utf-8", "replace")
    rows = csv.DictReader(io.StringIO(content))
    texts = [f"{row.get('title')}\n{row.get('abstract')}" for row in rows]
    source = write_lines(tmp_path / "in.jsonl", texts)
    run(source, tmp_path / "out", hugging_face_model)
    documents = expected(texts, build_tokenizer(hugging_face_model))
    assert read_both(tmp_path / "out") == spelled_out(documents)


@pytest.mark.parametrize("keep_newlines", [False, True])
def test_split_sentences_are_sequences_of_one_document(
    tmp_path, spelled_out, sentencepiece_model, keep_newlines
):
    texts = ["Given i.v. at first.\nThen p.o. for a week.", "", "One."]
    options = {"split_sentences": True, "keep_newlines": keep_newlines}
    source = write_lines(tmp_path / "in.jsonl", texts)
    report = run(source, tmp_path / "out", sentencepiece_model, **options)[0]
    assert report.prefix.endswith("out_text_sentence") and report.sequences == 3
    split = megatrons_splitter(keep_newlines)
    documents = expected([split(text) for text in texts], build_tokenizer(sentencepiece_model))
    written = tuple(Path(f"{report.prefix}.{end}").read_bytes() for end in ("bin", "idx"))
    assert written == spelled_out(documents)


def megatrons_splitter(keep_newlines):
    """As Megatron-LM's script makes its splitter from Punkt's parameters."""
    from nltk.tokenize.punkt import PunktLanguageVars, PunktSentenceTokenizer

    class KeepNewlines(PunktLanguageVars):
        _period_context_fmt = (
            r"\S*%(SentEndChars)s\s*(?=(?P<after_tok>%(NonWord)s|(?P<next_tok>\S+)))"
        )

    punkt = load_punkt()
    if keep_newlines:
        punkt = PunktSentenceTokenizer(train_text=punkt._params, lang_vars=KeepNewlines())
    return punkt.tokenize


def test_several_files_follow_one_another_by_name(tmp_path, spelled_out, sentencepiece_model):
    write_lines(tmp_path / "2.jsonl", ["B", "C"])
    write_lines(tmp_path / "1.jsonl", ["A"])
    run(str(tmp_path / "*.jsonl"), tmp_path / "out", sentencepiece_model)
    documents = expected("ABC", build_tokenizer(sentencepiece_model))
    assert read_both(tmp_path / "out") == spelled_out(documents)


def test_the_sidecar_tells_tokenizer_counts_and_digests(tmp_path, sentencepiece_model):
    tokenizer = build_tokenizer(sentencepiece_model)
    manifest = TokenizerManifest.from_tokenizer(tokenizer).to_json()
    options = EncodeOptions(write_lines(tmp_path / "in", ["A b", "", "c"]), str(tmp_path / "out"))
    report = preprocess(options, tokenizer, manifest)[0]
    sidecar = read_sidecar(report.prefix)
    assert sidecar["tokenizer"] == manifest
    assert (sidecar["documents"], sidecar["empty_documents"]) == (3, 1)
    assert (
        sidecar["tokens"]
        == report.tokens
        == len(tokenizer.encode("A b")) + len(tokenizer.encode("c"))
    )
    assert verify_prefix(report.prefix).fine


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_line_stops_everything_and_leaves_nothing(tmp_path, sentencepiece_model, workers):
    source = Path(write_lines(tmp_path / "in.jsonl", ["fine"] * 900))
    lines = source.read_bytes().splitlines()
    lines[700], lines[800] = b'{"text": "\xff"}', b"{"
    source.write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match=r"in.jsonl, line 701: byte 0xff.*--skip-bad-lines"):
        run(str(source), tmp_path / "out", sentencepiece_model, workers=workers)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_bad_lines_can_be_left_out_and_are_counted(tmp_path, sentencepiece_model):
    source = tmp_path / "in.jsonl"
    source.write_bytes(b'{"text": "A"}\n{"text": "\xff"}\n{"other": "x"}\n{"text": "B"}\n')
    report = run(str(source), tmp_path / "out", sentencepiece_model, skip_bad_lines=True)[0]
    assert (report.documents, report.bad_lines) == (2, 2)


@pytest.mark.parametrize("content", [b"", b'{"text": ""}\n{"text": ""}\n'])
def test_an_empty_corpus_is_refused(tmp_path, sentencepiece_model, content):
    (tmp_path / "in.jsonl").write_bytes(content)
    with pytest.raises(UserError, match="no text under 'text'"):
        run(str(tmp_path / "in.jsonl"), tmp_path / "out", sentencepiece_model)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_one_empty_key_leaves_no_corpus_of_the_other(tmp_path, sentencepiece_model):
    (tmp_path / "in.jsonl").write_text('{"text": "A", "title": ""}\n')
    with pytest.raises(UserError, match="no text under 'title'"):
        run(
            str(tmp_path / "in.jsonl"),
            tmp_path / "out",
            sentencepiece_model,
            json_keys=["text", "title"],
        )
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def arguments(source, output, config):
    return [
        *(sys.executable, str(TOOL), "--input", source, "--output-prefix", str(output)),
        *("--tokenizer-type", config.tokenizer_type, "--tokenizer-model", config.tokenizer_model),
        *("--append-eod", "--log-interval", "1000"),
    ]


def test_the_tool_writes_a_corpus_and_says_what(tmp_path, spelled_out, hugging_face_model):
    texts = [f"Case {n} of {n % 9}." for n in range(2100)]
    command = arguments(
        write_lines(tmp_path / "in.jsonl", texts), tmp_path / "out", hugging_face_model
    )
    done = subprocess.run([*command, "--workers", "2", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["documents"] == 2100
    assert "Processed " in done.stderr
    documents = expected(texts, build_tokenizer(hugging_face_model))
    assert read_both(tmp_path / "out") == spelled_out(documents)


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, sentencepiece_model):
    source = write_lines(tmp_path / "in.jsonl", ["A case of something or other."] * 5000)
    done = subprocess.run(
        arguments(source, tmp_path / "out", sentencepiece_model),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert done.returncode == 2
    assert "error: cannot write" in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--keep-newlines"], "--keep-newlines is given without"),
        (["--vocab-size", "32000"], "--vocab-size is 32000"),
        (["--input", "nowhere.jsonl"], "nowhere.jsonl names no file"),
    ],
)
def test_the_tool_refuses_clearly(tmp_path, sentencepiece_model, extra, said):
    source = write_lines(tmp_path / "in.jsonl", ["A"])
    command = [*arguments(source, tmp_path / "out", sentencepiece_model), *extra]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["gz", "zst", "parquet"])
def test_packed_and_parquet_input_give_the_same_bytes(tmp_path, sentencepiece_model, kind):
    texts = [text for text in ODD_TEXTS if isinstance(text, str)] * 50
    source = Path(write_lines(tmp_path / "in.jsonl", texts))
    run(str(source), tmp_path / "plain", sentencepiece_model)
    packed = tmp_path / f"in.jsonl.{kind}"
    if kind == "gz":
        packed.write_bytes(gzip.compress(source.read_bytes()))
    elif kind == "zst":
        zstandard = pytest.importorskip("zstandard")
        packed.write_bytes(zstandard.ZstdCompressor().compress(source.read_bytes()))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"text": texts}), packed, row_group_size=70)
    for workers in (1, 2):
        run(str(packed), tmp_path / "packed", sentencepiece_model, workers=workers)
        assert read_both(tmp_path / "packed") == read_both(tmp_path / "plain")


def test_a_dtype_too_small_for_the_vocabulary_is_refused(tmp_path, sentencepiece_model):
    tokenizer = build_tokenizer(sentencepiece_model)
    options = EncodeOptions(
        write_lines(tmp_path / "in.jsonl", ["A"]), str(tmp_path / "out"), dtype="uint16"
    )
    preprocess(options, tokenizer)
    tokenizer.vocab_size = 65_537
    with pytest.raises(UserError, match="--dtype is uint16, but the tokenizer has 65537 ids"):
        preprocess(options, tokenizer)


@pytest.mark.parametrize("eod", [5, 400, -1])
def test_a_wrong_end_of_document_id_is_refused(tmp_path, sentencepiece_model, eod):
    tokenizer = build_tokenizer(sentencepiece_model)
    tokenizer.eod = eod
    source = write_lines(tmp_path / "in.jsonl", ["A"])
    with pytest.raises(UserError, match=f"id of tiny.model is {eod}, which is no control token"):
        preprocess(EncodeOptions(source, str(tmp_path / "out"), append_eod=True), tokenizer)
    assert not list(tmp_path.glob("out*"))


def test_nothing_heavy_is_imported_on_the_way(sentencepiece_model):
    heavy = ["torch", "megatron", "transformers", "awkward", "nltk", "pyarrow", "datatrove"]
    code = "import sys, megatron_biollm.data.preprocess_tool as t; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(heavy) & set(done.stdout.split())
