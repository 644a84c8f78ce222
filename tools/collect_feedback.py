"""Lets experts compare answers on a web page, and turns what they said into training data.

One SQLite file is one project. The page is served on this machine alone unless told otherwise,
needs no network, and shows two answers side by side without saying which model wrote them.

examples:
  python tools/collect_feedback.py init study.db --title "Discharge letters" --double-share 0.2
  python tools/collect_feedback.py import study.db answers.jsonl
  python tools/collect_feedback.py import study.db step_1000.jsonl --with step_2000.jsonl
  python tools/collect_feedback.py import study.db checks.jsonl --gold
  python tools/collect_feedback.py add-annotator study.db "Dr. Rossi" --specialty cardiology
  python tools/collect_feedback.py add-annotator study.db "Prof. Weber" --role adjudicator
  python tools/collect_feedback.py serve study.db
  python tools/collect_feedback.py progress study.db
  python tools/collect_feedback.py adjudication study.db
  python tools/collect_feedback.py export study.db pairs.jsonl --min-agreement 0.7
  python tools/collect_feedback.py export study.db corrected.jsonl --form conversations
  python tools/collect_feedback.py backup study.db backups/study-2026-11-22.db

Every command explains itself: python tools/collect_feedback.py import --help
"""

import argparse
import contextlib
import dataclasses
import getpass
import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.config import UserError
from megatron_biollm.log import get_logger, run_tool, setup_logging

ROWS = """forms that are told by their first row (or --form):
  answers       {"prompt": text or messages, "answers": [{"model": ..., "text": ...}, ...]}
                optional: id, specialty, meta, gold (first, second, tie, both_unsafe)
  label-studio  tasks with two texts and annotations of the Pairwise template (JSON, not JSON-MIN)
  ultrafeedback instruction and completions with ratings
  preferences   prompt, chosen, rejected: TRL's form, and UltraFeedback binarized
  hh            HH-RLHF: two transcripts, chosen and rejected
label-studio tasks with the choices of `label-config` bring flags, strength and texts along.
two files of generations (--with): rows with prompt and text (or completion, response, answer,
output), joined by id or prompt. Importing a file again adds only what is new."""


def main() -> int:
    args = parse_args()
    setup_logging()
    return args.run(args) or 0


def parse_args() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, help: str, **more: Any) -> Any:
        sub = commands.add_parser(name, help=help, formatter_class=raw, **more)
        sub.add_argument("database", type=Path, help="the project's file")
        sub.set_defaults(run=run)
        return sub.add_argument

    add_project_commands(command)
    add_account_commands(command)
    add_result_commands(command)
    template = commands.add_parser("label-config", help="print the template for Label Studio")
    template.set_defaults(run=label_config)
    return parser.parse_args()


def add_project_commands(command: Any) -> None:
    for name, run, help in (
        ("init", init, "make an empty project"),
        ("configure", configure, "change the settings of a project; later imports obey them"),
    ):
        add = command(name, run, help)
        add("--title", help="shown on every page")
        add("--instructions", type=Path, metavar="FILE", help="text for the start page")
        add("--double-share", type=float, help="share of items that two experts judge [0.2]")
        add("--lease-minutes", type=float, help="an idle item goes to somebody else after [30]")
        if name == "init":
            add("--seed", type=int, help="draws sides, order and doubled items [1234]")
    add = command("import", import_, "add prompts with answers", epilog=ROWS)
    add("file", type=Path, nargs="+", help="JSONL or JSON")
    add("--form", default="auto", help="one of the forms below [told by the first row]")
    add("--with", dest="other", type=Path, metavar="FILE", help="answers of another checkpoint")
    add("--models", nargs=2, metavar=("A", "B"), help="what wrote them [the files' names]")
    add("--name", default="", help="of the data set or project [the file's name]")
    add("--pairs-per-prompt", type=int, default=1, help="of more than two answers [1]")
    add("--gold", action="store_true", help="the preferences are known answers, to check with")
    add("--json", action="store_true", help="print the counts as JSON")
    add = command("serve", serve, "serve the page until interrupted")
    add("--host", default="127.0.0.1", help="address to bind [127.0.0.1: this machine alone]")
    add("--port", type=int, default=8080, help="0 takes a free one [8080]")
    add("--name", action="append", default=[], help="further name of this server in browsers")
    add("--tls-cert", metavar="FILE", help="certificate (PEM) for HTTPS")
    add("--tls-key", metavar="FILE", help="its key (PEM)")
    add("--secure-cookies", action="store_true", help="behind a proxy that speaks HTTPS")
    add = command("backup", backup, "copy the database while others write")
    add("output", type=Path, help="a new file")


def add_account_commands(command: Any) -> None:
    add = command("add-annotator", add_annotator, "add an account; prints a password it makes up")
    add("name", help="to log in with")
    add("--specialty", default="", help="for counts, filters and the choice of items")
    add("--role", default="annotator", help="annotator or adjudicator [annotator]")
    add("--ask-password", action="store_true", help="ask for a password (or read it from stdin)")
    add = command("set-password", set_password, "give an account a new password")
    add("name")
    add("--ask-password", action="store_true", help="ask for it (or read it from stdin)")
    add = command("disable-annotator", disable, "end an account's sessions and let it in no more")
    add("name")


def add_result_commands(command: Any) -> None:
    add = command("progress", progress, "counts, gold accuracy and agreement")
    add("--json", action="store_true", help="print them as JSON")
    add = command("adjudication", adjudication, "list the items that wait for an adjudicator")
    add("--json", action="store_true", help="print them as JSON")
    add = command("export", export, "write training data; only here models are named")
    add("output", type=Path)
    add("--form", default="preference", help="preference, kto, conversations or label-studio")
    add("--min-agreement", type=float, default=0.6, help="share behind a verdict [0.6]")
    add("--min-judgements", type=int, default=1, help="experts that an item needs [1]")
    add("--specialty", action="append", default=[], help="only these experts; may be repeated")
    add("--adjudicated", action="store_true", help="only what an adjudicator settled")
    add("--allow-unsafe", action="store_true", help="also chosen answers flagged as unsafe")
    add("--with-gold", action="store_true", help="also items that check the annotators")
    add("--with-datasets", action="store_true", help="also preferences of imported data sets")
    add("--overwrite", action="store_true", help="replace an existing file")
    add("--json", action="store_true", help="print the counts as JSON")


def label_config(_: argparse.Namespace) -> None:
    from megatron_biollm.feedback.importers.label_studio import LABEL_CONFIG

    print(LABEL_CONFIG, end="")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    from megatron_biollm.feedback.database import database_errors, open_database

    with database_errors(path), contextlib.closing(open_database(path)) as connection:
        yield connection


def init(args: argparse.Namespace) -> None:
    from megatron_biollm.feedback.database import create_database

    create_database(args.database, **given_settings(args))
    print(f"{args.database} is made; import answers and add annotators next")


def configure(args: argparse.Namespace) -> None:
    from megatron_biollm.feedback.database import change_settings, settings

    with opened(args.database) as connection:
        change_settings(connection, **given_settings(args))
        print(json.dumps(settings(connection), indent=2, ensure_ascii=False))


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    names = ("title", "double_share", "lease_minutes", "seed")
    given = {name: getattr(args, name, None) for name in names}
    if args.instructions is not None:
        given["instructions"] = read_text(args.instructions)
    return {name: value for name, value in given.items() if value is not None}


def read_text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path} does not exist; give a text file")
    return path.read_text(encoding="utf-8")


def import_(args: argparse.Namespace) -> None:
    from megatron_biollm.feedback.importing import import_file, import_two_files

    with opened(args.database) as connection:
        if args.other is not None:
            if len(args.file) != 1:
                raise UserError(f"--with joins two files, but {len(args.file)} stand before it")
            models = tuple(args.models or (None, None))
            done = [import_two_files(connection, args.file[0], args.other, time.time(), models)]
        else:
            done = [
                import_file(
                    connection, file, time.time(), args.form, args.name, args.pairs_per_prompt,
                    args.gold,
                )
                for file in args.file
            ]  # fmt: skip
    if args.json:
        print(json.dumps([dataclasses.asdict(counts) for counts in done], indent=2))
        return
    for file, counts in zip(args.file, done, strict=True):
        dropped = "".join(f", {n} left out: {reason}" for reason, n in counts.dropped.items())
        print(
            f"{file}: {counts.added} pairs added, {counts.there} were there, "
            f"{counts.opinions} judgements{dropped}"
        )


def serve(args: argparse.Namespace) -> None:
    from megatron_biollm.feedback.database import database_errors
    from megatron_biollm.feedback.web.serve import make_feedback_server, serve

    if bool(args.tls_cert) != bool(args.tls_key):
        raise UserError("--tls-cert and --tls-key belong together; give both or none")
    certificate = (args.tls_cert, args.tls_key) if args.tls_cert else None
    with database_errors(args.database):
        server = make_feedback_server(
            args.database, args.host, args.port, names=args.name, certificate=certificate,
            secure_cookies=args.secure_cookies,
        )  # fmt: skip
    serve(server, "https" if certificate else "http")


def backup(args: argparse.Namespace) -> None:
    from megatron_biollm.feedback.database import backup

    backup(args.database, args.output)
    print(f"{args.output} is a whole copy; restore it by putting it in the place of the database")


def add_annotator(args: argparse.Namespace) -> None:
    from megatron_biollm.feedback.accounts import add_annotator

    password, shown = new_password(args.ask_password)
    with opened(args.database) as connection:
        add_annotator(connection, args.name, password, args.specialty, args.role, now=time.time())
    print(f"{args.role} {args.name!r} is added{shown}")


def set_password(args: argparse.Namespace) -> None:
    from megatron_biollm.feedback.accounts import set_password

    password, shown = new_password(args.ask_password)
    with opened(args.database) as connection:
        set_password(connection, args.name, password)
    print(f"{args.name!r} has a new password{shown}")


def new_password(ask: bool) -> tuple[str, str]:
    """Never from the command line, which all users of a machine can see."""
    from megatron_biollm.feedback.accounts import make_password

    if not ask:
        password = make_password()
        return password, f"; password, shown this once: {password}"
    if sys.stdin.isatty():
        return getpass.getpass("password: "), ""
    return sys.stdin.readline().rstrip("\n"), ""


def disable(args: argparse.Namespace) -> None:
    from megatron_biollm.feedback.accounts import disable

    with opened(args.database) as connection:
        disable(connection, args.name)
    print(f"{args.name!r} cannot log in any more; what they judged stays")


def progress(args: argparse.Namespace) -> None:
    from megatron_biollm.feedback.progress import report, table

    with opened(args.database) as connection:
        found = report(connection)
    print(json.dumps(found, indent=2, default=dataclasses.asdict) if args.json else table(found))


def adjudication(args: argparse.Namespace) -> None:
    from megatron_biollm.feedback.progress import disputes

    with opened(args.database) as connection:
        rows = disputes(connection)
    if args.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        print(f"item {row['item_id']}: {', '.join(row['reasons'])}: {row['question']}")
    get_logger(__name__).info("%d items wait", len(rows))


def export(args: argparse.Namespace) -> Optional[int]:
    from megatron_biollm.feedback.export import export
    from megatron_biollm.feedback.verdicts import Filters

    filters = Filters(
        min_agreement=args.min_agreement,
        min_judgements=args.min_judgements,
        specialties=tuple(args.specialty),
        adjudicated=args.adjudicated,
        allow_unsafe=args.allow_unsafe,
        with_gold=args.with_gold,
        with_datasets=args.with_datasets,
    )
    with opened(args.database) as connection:
        done = export(connection, args.output, args.form, filters, args.overwrite)
    if args.json:
        print(json.dumps(dataclasses.asdict(done), indent=2))
        return
    print(f"{done.path}: {done.rows} rows")
    for reason, number in done.left_out.items():
        print(f"  left out: {number} {reason}")
    for model, (won, lost) in done.wins.items():
        print(f"  {model or 'unnamed model'}: chosen {won}, rejected {lost}")


if __name__ == "__main__":
    sys.exit(run_tool(main))
