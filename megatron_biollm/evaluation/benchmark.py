"""What a benchmark is: files, conventions, items, prompts, scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.items import AnyItem, Prediction
from megatron_biollm.evaluation.tally import Tally

Conventions = Mapping[str, str]


class MissingFile(UserError):
    """A file of a benchmark is not where it is expected."""


@dataclass(frozen=True)
class Convention:
    """A choice that changes the score, printed with it.

    Attributes:
        name: of the option.
        values: what it may be; the first is the standard one.
        help: what it changes, and who uses which.
    """

    name: str
    values: tuple[str, ...]
    help: str


@dataclass(frozen=True)
class Source:
    """Where the files of one split lie.

    Attributes:
        folder: of the benchmark.
        paths: by role ("questions", "labels", ...), as the split names them; a user may point each
            elsewhere, and another split of the same format is read the same way.
        download: what to say where a file is missing: the official download's name and address.
        split: its name, for files that hold several.
    """

    folder: Path
    paths: Mapping[str, Path]
    download: str
    split: str = ""

    def path(self, role: str) -> Path:
        """The file (or folder) of a role; where it is not there, the same gzipped (`.gz`).

        Raises:
            MissingFile: it is not there, or only the user can say where it is.
        """
        if self.paths[role] == Path():
            raise MissingFile(
                f"there is no usual name for {role!r} of {self.download}: say where it is "
                f"(--file BENCHMARK.{role}=PATH)"
            )
        path = self.folder / self.paths[role]
        packed = path.with_name(path.name + ".gz")
        if not path.exists() and not packed.exists():
            raise MissingFile(
                f"{path} is missing; it is part of {self.download}: download it and put it there, "
                f"or say where it is (--file BENCHMARK.{role}=PATH)"
            )
        return path if path.exists() else packed


@dataclass(frozen=True)
class Prompt:
    """How an item is put to a model; {braces} name what `prompts.py` fills in.

    Attributes:
        instruction: said first; with a chat template, the system message.
        paraphrases: other instructions of the same meaning, for prompt sensitivity.
        text_name: what stands before an item's text; empty for "Question", "Sentence" or "Text", as
            the task has it.
        cue: what stands before the answer; empty for what is usual of the item's kind.
    """

    instruction: str
    paraphrases: tuple[str, ...] = ()
    text_name: str = ""
    cue: str = ""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark as the suite knows it.

    Attributes:
        name: as on the command line, such as `medqa`.
        title: as in tables.
        task: "qa", "ner", "re" or "extra": the row's block in the table.
        folder: below the data folder.
        download: name and address of the official download.
        splits: by name, the files by role; `""` as a path marks a file the user must name.
        test_split: what is scored where nothing is said.
        fewshot_split: where examples come from; empty for none.
        conventions: choices that change the score.
        fewshot_by_group: an item's examples are of its own group.
        prompt: what a model is told.
        read: files and conventions to items, in a fixed order.
        score: items, a prediction for each, and conventions to counts.
    """

    name: str
    title: str
    task: str
    folder: str
    download: str
    splits: Mapping[str, Mapping[str, str]]
    test_split: str
    fewshot_split: str
    prompt: Prompt
    read: Callable[[Source, Conventions], list[AnyItem]]
    score: Callable[[Sequence[AnyItem], Sequence[Prediction], Conventions], Tally]
    conventions: tuple[Convention, ...] = field(default=())
    fewshot_by_group: bool = False

    def choose(self, asked: Conventions) -> dict[str, str]:
        """Every convention with its value: as asked, else the standard one.

        Raises:
            UserError: a name or value that the benchmark does not know.
        """
        known = {one.name: one for one in self.conventions}
        for name, value in asked.items():
            if name not in known:
                raise UserError(
                    f"{self.name} has no convention {name!r}; it has {', '.join(known) or 'none'}"
                )
            if value not in known[name].values:
                raise UserError(
                    f"{self.name}.{name}={value} is none of {', '.join(known[name].values)}"
                )
        return {name: asked.get(name, one.values[0]) for name, one in known.items()}

    def source(self, data: Path, split: str = "", files: Mapping[str, str] | None = None) -> Source:
        """The files of a split below the data folder; `files` points roles elsewhere.

        Raises:
            UserError: no such split or role.
        """
        split = split or self.test_split
        if split not in self.splits:
            raise UserError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}")
        paths = dict(self.splits[split])
        for role in files or {}:
            if role not in paths:
                raise UserError(f"{self.name} has no file {role!r}; it has {', '.join(paths)}")
        paths |= files or {}
        places = {role: Path(path) for role, path in paths.items()}
        return Source(data / self.folder, places, self.download, split)
