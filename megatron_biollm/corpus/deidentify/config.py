"""Settings of the de-identification, and where its secret comes from."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from megatron_biollm.config import UserError, option

MIN_SECRET_BYTES = 16


@dataclass
class DeidentifyConfig:
    """What is de-identified, with which secret, and how strictly. The secret itself is no option:
    it would be written beside every run."""

    sources: list[str] = option(["clinical_notes"], "sources whose documents are de-identified")
    secret_env: str = option("BIOLLM_DEID_SECRET", "environment variable that holds the secret")
    secret_file: Optional[str] = option(None, "file that holds the secret, instead of the variable")
    dates: str = option("shift", "shift (by days constant for a patient) or year (the year alone)")
    max_shift_days: int = option(365, "dates move by 1 to so many days, back or forth")
    max_chars: int = option(2_000_000, "a longer note is dropped")
    max_seconds: float = option(120.0, "a note that takes longer is dropped")
    languages: list[str] = option(["en"], "notes said to be in another language are dropped")
    drop_residual: bool = option(False, "drop a note in which the audit still finds something")
    detectors: list[str] = option(
        [], "further detectors as module:name, called without arguments: a model of your own"
    )
    keep_metadata: list[str] = option(
        ["document_type", "note_type", "specialty", "format", "version"],
        "metadata that stay; everything else of a note goes, the title is de-identified",
    )

    def __post_init__(self) -> None:
        if self.dates not in ("shift", "year"):
            raise UserError(f"deidentify.dates is {self.dates!r}; give shift or year")
        if not 1 <= self.max_shift_days <= 3650:
            raise UserError(
                f"deidentify.max_shift_days is {self.max_shift_days}; dates move by 1 to 3650 days"
            )
        for name in self.detectors:
            if not re.fullmatch(r"[\w.]+:\w+", name):
                raise UserError(
                    f"deidentify.detectors holds {name!r}; write module:name, for example "
                    "my_models:presidio_detector"
                )


def read_secret(config: DeidentifyConfig) -> bytes:
    """The secret from the file or the environment.

    Raises:
        UserError: there is none, or it is too short. Its value is never shown.
    """
    if config.secret_file is not None:
        try:
            secret = Path(config.secret_file).read_bytes().strip()
        except OSError as error:
            raise UserError(
                f"deidentify.secret_file {config.secret_file} cannot be read: {error.strerror}; "
                "give a file that holds the secret"
            ) from error
        place = f"file {config.secret_file}"
    else:
        secret = os.environ.get(config.secret_env, "").encode("utf-8", "surrogateescape").strip()
        place = f"environment variable {config.secret_env}"
    if len(secret) < MIN_SECRET_BYTES:
        raise UserError(
            f"the secret of the de-identification ({place}) has {len(secret)} bytes; it needs at "
            f"least {MIN_SECRET_BYTES}: make one with `openssl rand -hex 32`, keep it with the "
            "patients' data, and give the same one in every run"
        )
    return secret
