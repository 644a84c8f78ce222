"""Results of a clinical trial, API v2, as text: flow, baseline, outcomes, adverse events.

Numbers become small tables: a row of group names, then one row per class and category, cells
divided by " | ". A group's description is told where it is first met.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

Node = dict[str, Any]

CELLS = " | "


def results_sections(results: Node) -> Iterator[tuple[str, str]]:
    """(name, text) of the four parts of a results section, some of them empty."""
    told: set[str] = set()
    flow = results.get("participantFlowModule") or {}
    yield "participant_flow", _joined(_flow(flow, told))
    yield "baseline", _joined(_baseline(results.get("baselineCharacteristicsModule") or {}, told))
    measures = (results.get("outcomeMeasuresModule") or {}).get("outcomeMeasures") or ()
    yield "outcome_measures", "\n\n".join(_joined(_outcome(m, told)) for m in measures)
    yield "adverse_events", _joined(_adverse_events(results.get("adverseEventsModule") or {}, told))
    caveats = (results.get("moreInfoModule") or {}).get("limitationsAndCaveats") or {}
    yield "limitations", _text(caveats.get("description"))


def _text(value: Any) -> str:
    return "" if value is None else " ".join(str(value).split())


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(line for line in lines if line)


def words(value: Any) -> str:
    """A code such as ACTIVE_COMPARATOR as words; other text as it is."""
    text = _text(value)
    return text.replace("_", " ").capitalize() if text.isupper() and len(text) > 2 else text


def _once(text: str, told: set[str]) -> str:
    if text in told:
        return ""
    told.add(text)
    return text


def _groups(groups: list[Node], told: set[str]) -> Iterator[str]:
    for group in groups:
        title, description = _text(group.get("title")), _text(group.get("description"))
        if description and description != title:
            yield _once(f"{title}: {description}" if title else description, told)


def _row(head: str, cells: Iterable[str]) -> str:
    return CELLS.join([head, *(cell or "-" for cell in cells)])


def _header(groups: list[Node], denoms: list[Node]) -> str:
    first = (denoms or [{}])[0]
    counts = {c.get("groupId"): _text(c.get("value")) for c in first.get("counts") or ()}
    names = [_text(group.get("title")) or _text(group.get("id")) for group in groups]
    sizes = [counts.get(group.get("id"), "") for group in groups]
    return _row("Group", [f"{n} (n={s})" if s else n for n, s in zip(names, sizes, strict=True)])


def _by_group(groups: list[Node], entries: list[Node], value: Any) -> list[str]:
    found = {entry.get("groupId"): value(entry) for entry in entries}
    return [found.get(group.get("id"), "") for group in groups]


def _flow(module: Node, told: set[str]) -> Iterator[str]:
    yield _text(module.get("recruitmentDetails"))
    yield _text(module.get("preAssignmentDetails"))
    groups = module.get("groups") or []
    yield from _groups(groups, told)
    for period in module.get("periods") or ():
        yield _row(_text(period.get("title")) or "Period", [_text(g.get("title")) for g in groups])
        for milestone in period.get("milestones") or ():
            achieved = milestone.get("achievements") or []
            cells = _by_group(groups, achieved, _achieved)
            yield _row(_text(milestone.get("type")), cells)
            yield _text(milestone.get("comment"))
        for withdrawal in period.get("dropWithdraws") or ():
            cells = _by_group(groups, withdrawal.get("reasons") or [], _achieved)
            yield _row(_text(withdrawal.get("type")), cells)


def _achieved(entry: Node) -> str:
    count, comment = _text(entry.get("numSubjects")), _text(entry.get("comment"))
    return f"{count} ({comment})" if comment else count


def _baseline(module: Node, told: set[str]) -> Iterator[str]:
    yield _text(module.get("populationDescription"))
    groups = module.get("groups") or []
    yield from _groups(groups, told)
    yield _header(groups, module.get("denoms") or []) if module.get("measures") else ""
    for measure in module.get("measures") or ():
        yield f"{_text(measure.get('title'))}{_unit(measure)}"
        yield _once(_text(measure.get("description")), told)
        yield _once(_text(measure.get("populationDescription")), told)
        yield from _values(measure, groups)


def _outcome(measure: Node, told: set[str]) -> Iterator[str]:
    kind, frame = words(measure.get("type")), _text(measure.get("timeFrame"))
    head = f"{kind} outcome: {_text(measure.get('title'))}" if kind else _text(measure.get("title"))
    yield f"{head} [{frame}]" if frame else head
    yield _once(_text(measure.get("description")), told)
    yield _once(_text(measure.get("populationDescription")), told)
    groups = measure.get("groups") or []
    yield from _groups(groups, told)
    if measure.get("classes"):
        yield _header(groups, measure.get("denoms") or []) + _unit(measure)
        yield from _values(measure, groups)
    for analysis in measure.get("analyses") or ():
        yield _analysis(analysis, groups)


def _unit(measure: Node) -> str:
    parts = [words(measure.get("paramType")), _text(measure.get("dispersionType"))]
    parts = [p for p in parts if p and p.lower() not in ("na", "not applicable")]
    kind, unit = " / ".join(words(p) for p in parts), _text(measure.get("unitOfMeasure"))
    return f" [{', '.join(filter(None, (kind, unit)))}]" if kind or unit else ""


def _values(measure: Node, groups: list[Node]) -> Iterator[str]:
    for group_class in measure.get("classes") or ():
        for category in group_class.get("categories") or ():
            titles = (_text(group_class.get("title")), _text(category.get("title")))
            cells = _by_group(groups, category.get("measurements") or [], _value)
            yield _row(", ".join(filter(None, titles)) or "Value", cells)
    told: set[str] = set()
    for group_class in measure.get("classes") or ():
        for category in group_class.get("categories") or ():
            for entry in category.get("measurements") or ():
                yield _once(_text(entry.get("comment")), told)


def _value(entry: Node) -> str:
    value = _text(entry.get("value"))
    low, high = _text(entry.get("lowerLimit")), _text(entry.get("upperLimit"))
    if low or high:
        return f"{value} ({low or '-'} to {high or '-'})"
    spread = _text(entry.get("spread"))
    return f"{value} ({spread})" if spread else value


def _analysis(analysis: Node, groups: list[Node]) -> str:
    titles = {group.get("id"): _text(group.get("title")) for group in groups}
    compared = " vs ".join(titles.get(i, _text(i)) for i in analysis.get("groupIds") or ())
    parts = [f"Analysis of {compared}" if compared else "Analysis", _estimate(analysis)]
    parts += [_text(analysis.get("statisticalMethod"))]
    parts += [f"p {_text(analysis['pValue'])}" if analysis.get("pValue") else ""]
    parts += [words(analysis.get("nonInferiorityType"))]
    parts += [_text(analysis.get(name)) for name in _COMMENTS]
    return "; ".join(filter(None, parts))


_COMMENTS = (
    "groupDescription",
    "pValueComment",
    "statisticalComment",
    "nonInferiorityComment",
    "estimateComment",
    "otherAnalysisDescription",
)


def _estimate(analysis: Node) -> str:
    kind, value = _text(analysis.get("paramType")), _text(analysis.get("paramValue"))
    if not value:
        return kind
    low, high = _text(analysis.get("ciLowerLimit")), _text(analysis.get("ciUpperLimit"))
    percent = _text(analysis.get("ciPctValue"))
    interval = f" ({percent + '% ' if percent else ''}CI {low or '-'} to {high or '-'})"
    return f"{kind} {value}{interval if low or high else ''}".strip()


def _adverse_events(module: Node, told: set[str]) -> Iterator[str]:
    yield f"Time frame: {_text(module['timeFrame'])}" if module.get("timeFrame") else ""
    yield _text(module.get("description"))
    groups = module.get("eventGroups") or []
    yield from _groups(groups, told)
    for group in groups:
        yield _group_total(group)
    for kind in ("serious", "other"):
        yield from _events(kind, module.get(f"{kind}Events") or (), groups)


def _group_total(group: Node) -> str:
    counts = []
    for kind, label in (("serious", "serious"), ("other", "other"), ("deaths", "deaths")):
        affected, risk = group.get(f"{kind}NumAffected"), group.get(f"{kind}NumAtRisk")
        if affected is not None:
            counts.append(f"{label} {affected}/{risk if risk is not None else '-'}")
    title = _text(group.get("title")) or _text(group.get("id"))
    return f"{title}: {', '.join(counts)}" if counts else ""


def _events(kind: str, events: Iterable[Node], groups: list[Node]) -> Iterator[str]:
    """One row per event that anyone had; those that no one had are left out."""
    header = _row(f"{kind.capitalize()} adverse events", [_text(g.get("title")) for g in groups])
    for event in events:
        stats = event.get("stats") or []
        if not any(str(stat.get("numAffected") or "0") != "0" for stat in stats):
            continue
        if header:
            yield header
            header = ""
        organ = _text(event.get("organSystem"))
        name = _text(event.get("term")) + (f" ({organ})" if organ else "")
        yield _row(name, _by_group(groups, stats, _affected))
        yield _text(event.get("notes"))


def _affected(stat: Node) -> str:
    risk = stat.get("numAtRisk")
    return (
        f"{stat.get('numAffected', 0)}/{risk}" if risk is not None else _text(stat["numAffected"])
    )
