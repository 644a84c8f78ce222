"""What people would encode a corpus with instead, each as a process of its own.

  python -m megatron_biollm.recipes.benchmarks.encode_peers \
      sentencepiece MODEL WORKERS INPUT OUTPUT
  python -m megatron_biollm.recipes.benchmarks.encode_peers datatrove \
      TOKENIZER WORKERS INPUT OUTPUT

`sentencepiece` only encodes, in batches and with WORKERS threads: no index, no end-of-document
token. `datatrove` runs its Megatron tokenizer on INPUT.0, INPUT.1, ..., a file for each worker,
which it needs, and leaves a pair of files for each.
"""

import itertools
import json
import sys
from pathlib import Path

_BATCH = 1000


def encode_with_sentencepiece(model: str, workers: int, source: str, output: str) -> None:
    """Writes the ids alone, as uint16 or int32."""
    import numpy
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=model)
    dtype = "<u2" if processor.get_piece_size() < 65500 else "<i4"
    with Path(source).open("rb") as lines, Path(output).open("wb") as file:
        while batch := [json.loads(line)["text"] for line in itertools.islice(lines, _BATCH)]:
            for ids in processor.encode(batch, num_threads=workers):
                file.write(numpy.array(ids, dtype).tobytes())


def encode_with_datatrove(tokenizer: str, workers: int, source: str, output: str) -> None:
    """Runs datatrove's local executor with a task for each worker."""
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens.megatron_tokenizer import MegatronDocumentTokenizer

    path = Path(source)
    pipeline = [
        JsonlReader(str(path.parent), glob_pattern=f"{path.name}.[0-9]*", doc_progress=False),
        MegatronDocumentTokenizer(
            output, tokenizer_name_or_path=tokenizer, eos_token="</s>", save_filename="peer"
        ),
    ]
    executor = LocalPipelineExecutor(
        pipeline, tasks=workers, workers=workers, logging_dir=f"{output}/logs"
    )
    executor.run()


if __name__ == "__main__":
    peers = {"sentencepiece": encode_with_sentencepiece, "datatrove": encode_with_datatrove}
    peers[sys.argv[1]](sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
