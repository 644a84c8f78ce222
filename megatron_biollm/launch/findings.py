"""What a check found, and all of them on one page."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

PASS, WARN, FAIL, SKIP = "pass", "warn", "FAIL", "skip"


@dataclass(frozen=True)
class Finding:
    """One line of the page.

    Attributes:
        check: its name.
        status: pass, warn (the run works, but look at it), FAIL (it would not), or skip.
        text: what was found, with values.
        remedy: what to do about it.
        hosts: machines that are to blame, where some are.
    """

    check: str
    status: str
    text: str
    remedy: str = ""
    hosts: tuple[str, ...] = ()


def page(title: str, findings: Iterable[Finding]) -> str:
    """All findings for people, the bad ones with their remedy, and the verdict."""
    findings = list(findings)
    width = max((len(f.check) for f in findings), default=0)
    lines = [title, "-" * min(len(title), 100)]
    for finding in findings:
        lines.append(f"{finding.status}  {finding.check:<{width}}  {finding.text}")
        indent = " " * (width + 8)
        if finding.hosts:
            lines.append(f"{indent}on {', '.join(finding.hosts)}")
        if finding.remedy and finding.status in (WARN, FAIL):
            lines.append(f"{indent}-> {finding.remedy}")
    return "\n".join([*lines, verdict(findings)])


def verdict(findings: Sequence[Finding]) -> str:
    """The last line."""
    failed = sum(f.status == FAIL for f in findings)
    warned = sum(f.status == WARN for f in findings)
    if failed:
        return f"NOT READY: {failed} of {len(findings)} checks failed, {warned} warnings"
    return f"ready: {len(findings)} checks, {warned} warnings"


def report(findings: Sequence[Finding], **about: Any) -> dict[str, Any]:
    """The same for programs: `ready`, `bad_hosts`, `findings`, and what is given."""
    failed = [f for f in findings if f.status == FAIL]
    return {
        **about,
        "ready": not failed,
        "bad_hosts": sorted({host for finding in failed for host in finding.hosts}),
        "findings": [asdict(finding) for finding in findings],
    }
