"""A model in memory as lm-evaluation-harness sees it, so that every one of its tasks can be asked.

What is asked is the same as of lm-eval's own `hf` on the exported model, token by token: the
tokenizer is the export's, and contexts are joined, cut and begun with BOS by the same rules
(`lm_eval/models/huggingface.py`, version 0.4.13). All ranks call every method alike.
"""

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Optional

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.live_model import LiveModel, Request
from megatron_biollm.generation.sampling import SamplingOptions
from megatron_biollm.log import Progress, get_logger
from megatron_biollm.tokenizer.chat_template import save_for_inference
from megatron_biollm.tokenizer.tokenizer import load_with_transformers

MAX_GEN_TOKS = 256
logger = get_logger(__name__)


class HarnessModel(TemplateLM):
    """A `LiveModel` behind the interface of lm-eval.

    Args:
        live: the model.
        seed: of texts that are sampled.
        speaks: shows progress; one rank should.
    """

    def __init__(self, live: LiveModel, seed: int = 1234, speaks: bool = False) -> None:
        super().__init__()
        self.live, self.seed, self.speaks = live, seed, speaks
        own = live.generator.tokenizer
        with tempfile.TemporaryDirectory() as folder:
            stop = save_for_inference(own, Path(folder))
            self.tokenizer = load_with_transformers(Path(folder))
        self.stop_ids = () if stop is None else (stop,)
        # The choices of a question come one after another, each with the same context.
        self._encoded = functools.lru_cache(maxsize=16)(self._encode)
        self._name = f"{own.name}__{own.sha256[:16]}"

    @property
    def eot_token_id(self) -> int:
        """Ends a document."""
        return self.tokenizer.eos_token_id

    @functools.cached_property
    def prefix_token_id(self) -> int:
        """What stands before a text without a context."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    @property
    def max_length(self) -> int:
        """Most tokens of context and continuation."""
        return self.live.max_length

    @property
    def max_gen_toks(self) -> int:
        """Most tokens to write where a task does not say."""
        return min(MAX_GEN_TOKS, self.max_length // 2)

    @property
    def tokenizer_name(self) -> str:
        """Tells stored requests of different tokenizers apart."""
        return self._name

    def tok_encode(
        self, string: str, add_special_tokens: Optional[bool] = None, **_: Any
    ) -> list[int]:
        """The ids of a text; BOS is never written twice."""
        return list(self._encoded(string, add_special_tokens))

    def _encode(self, string: str, add_special_tokens: Optional[bool]) -> tuple[int, ...]:
        if add_special_tokens is None and has_bos_prefix(string, self._prefix_text):
            add_special_tokens = False
        given = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return tuple(self.tokenizer.encode(string, **given))

    @functools.cached_property
    def _prefix_text(self) -> str:
        return self.tokenizer.decode(self.prefix_token_id)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether it is the likeliest."""
        # Encoding says nothing of its progress: it takes little time beside the model.
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        with self._progress(len(requests), "log-likelihoods") as progress:
            answers = self.live.log_likelihoods([one[1:] for one in requests], progress.update)
        for (texts, _, _), answer in zip(requests, answers, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-probability of whole texts, in pieces where they are longer than the context."""
        windows: list[tuple[None, list[int], list[int]]] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            pieces = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            own = [(None, *make_disjoint_window(piece)) for piece in pieces]
            windows += own
            owners += [number] * len(own)
        totals = [0.0] * len(requests)
        for owner, (value, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[owner] += value
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Texts that continue the contexts, up to the first of their stop strings."""
        made: dict[str, SamplingOptions] = {}
        kwargs = [self._kwargs(request.args[1]) for request in requests]
        asked = [
            Request(tuple(self._prompt(request.args[0])), made.setdefault(*self._options(one)))
            for request, one in zip(requests, kwargs, strict=True)
        ]
        with self._progress(len(asked), "texts") as progress:
            written = self.live.write(asked, progress.update)
        texts = []
        for request, one, ids in zip(requests, kwargs, written, strict=True):
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
            texts.append(postprocess_generated_text(text, one["until"], None))
            self.cache_hook.add_partial("generate_until", request.args, texts[-1])
        self._tell_of_cuts(requests, kwargs)
        return texts

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as text, by the model's own template.

        Raises:
            UserError: the model has none.
        """
        if not self.tokenizer.chat_template:
            raise UserError(
                "the model has no chat template, since it was not trained on conversations; leave "
                "the chat template out, or evaluate a checkpoint of instruction tuning"
            )
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def _kwargs(self, gen_kwargs: dict[str, Any]) -> dict[str, Any]:
        kwargs = normalize_gen_kwargs(gen_kwargs, self.max_gen_toks)
        eos = self.tokenizer.decode(self.eot_token_id)
        kwargs["until"] = handle_stop_sequences(kwargs["until"], eos)
        # `hf` refuses it; then a model of a short context could not be asked everything.
        if kwargs["max_gen_toks"] >= self.max_length:
            kwargs["max_gen_toks"] = self.max_gen_toks
        return kwargs

    def _options(self, kwargs: dict[str, Any]) -> tuple[str, SamplingOptions]:
        """The options, and a key under which they are made once: requests of the same options
        are written together."""
        greedy = not kwargs["do_sample"] or kwargs.get("temperature", 1.0) == 0
        chosen = (
            {}
            if greedy
            else {
                name: kwargs[name] for name in ("temperature", "top_k", "top_p") if name in kwargs
            }
        )
        options = SamplingOptions(
            max_new_tokens=kwargs["max_gen_toks"],
            greedy=greedy,
            seed=self.seed,
            stop_ids=self.stop_ids,
            ends=self._ends(kwargs["until"]),
            **chosen,
        )
        return repr(sorted(kwargs.items())), options

    def _ends(self, until: Sequence[str]) -> Callable[[Sequence[int]], bool]:
        """Whether a text ends in one of the stop strings; as `hf`, it looks at the last tokens."""
        lengths = {
            stop: len(self.tokenizer.encode(stop, add_special_tokens=False)) + 2
            for stop in until
            if stop
        }

        def ends(ids: Sequence[int]) -> bool:
            return any(
                stop in self.tokenizer.decode(ids[-length:]) for stop, length in lengths.items()
            )

        return ends

    def _tell_of_cuts(self, requests: Sequence[Instance], kwargs: Sequence[dict]) -> None:
        wanted = max((one.args[1].get("max_gen_toks", 0) for one in requests), default=0)
        given = max((one["max_gen_toks"] for one in kwargs), default=0)
        if wanted > given:
            logger.warning(
                "answers of %d tokens were asked for, and the model's context is %d: %d at most "
                "were written", wanted, self.max_length, given,
            )  # fmt: skip

    def _prompt(self, context: str) -> list[int]:
        whole = has_bos_prefix(context, self.tokenizer.bos_token)
        ids = self.tokenizer.encode(context, **({"add_special_tokens": False} if whole else {}))
        return ids or [self.prefix_token_id]

    def _progress(self, total: int, what: str) -> Progress:
        return Progress(total, what, "request", enabled=self.speaks)
