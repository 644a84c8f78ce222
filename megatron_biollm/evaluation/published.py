"""Published scores of other models, with their sources and how their conventions differ."""

from dataclasses import dataclass
from importlib.resources import files

import yaml


@dataclass(frozen=True)
class Published:
    """One published score.

    Attributes:
        value: a share, as ours are; printed in percent.
        setting: how it was got, such as "5-shot".
        differs: which convention is another one than the standard one here; empty for none known.
        source, url: where it can be looked up.
    """

    benchmark: str
    model: str
    setting: str
    value: float
    differs: str
    source: str
    url: str


def read_published() -> tuple[Published, ...]:
    """Every published score, in the order of the file."""
    text = files("megatron_biollm.evaluation").joinpath("published.yaml").read_text("utf-8")
    return tuple(
        Published(
            benchmark=benchmark,
            model=row["model"],
            setting=row["setting"],
            value=percent / 100,
            differs=row.get("differs", {}).get(benchmark, ""),
            source=row["source"],
            url=row["url"],
        )
        for row in yaml.safe_load(text)
        for benchmark, percent in row["scores"].items()
    )
