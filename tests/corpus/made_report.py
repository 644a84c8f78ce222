"""A report and a manifest of a made-up corpus of three sources, as `Seal` writes them."""

HOSTILE = "<script>alert('x')</script><img src=\"http://evil.example/x.png\">&amp;\x00\u202e"


def made_report(text=HOSTILE):
    """report.json; `text` stands wherever a source file or a document has a say."""
    return {
        "files": [
            file("a.xml.gz", "pubmed", 120, dropped={"no_text": 11}),
            file("b.xml.gz", "pubmed", 0, dropped={"broken_file": 9}, broken=True, text=text),
            file(f"{text}.csv", "clinical_notes", 40, text=text),
            file("c.jsonl", "text", 7),
            {**file("x.pdf", None, 0), "passed_over": f"no reader knows it: {text}"},
        ],
        "flows": [
            flow("language", {"pubmed": 120, "clinical_notes": 40, "text": 7}, {"pubmed": 3}, text),
            flow("deidentify", {"pubmed": 117, "clinical_notes": 40, "text": 7}, {}, text)
            | {"tally": {"notes": 40, "replaced_name": 1234, "residual_digits": 17}},
            flow("identity", {"pubmed": 117, "clinical_notes": 40, "text": 7}, {"text": 1}, text),
        ],
        "profiles": {
            source: {
                "lengths": {"5": 3, "11": 31},
                "years": {"1999": 5, "2020": 20, "not stated": 2},
                "languages": {"en": 26, text: 1},
                "licences": {text: 27},
                "samples": [sample(source, text, rank="00")],
            }
            for source in ("clinical_notes", "pubmed", "text")
        },
        "clusters": {
            "near_duplicate": {
                "summary": {"clusters": 1913, "sizes": {"2": 1}, "shown": [0]},
                "samples": [
                    sample("pubmed", text, cluster=0, kept=True),
                    sample("text", text, cluster=0, kept=False),
                ],
            },
        },
    }


def made_manifest():
    """manifest.json to it."""
    counts = {"clinical_notes": (40, 81234), "pubmed": (114, 160001), "text": (6, 9871)}
    return {
        "sources": {
            source: {"documents": documents, "characters": characters, "bytes": characters // 3}
            for source, (documents, characters) in counts.items()
        },
        "files": {"read": 4, "passed_over": ["x.pdf"], "faulty": {}},
        "dropped": {},
        "shards": [
            {"path": f"documents/{source}/00000.jsonl.zst", "source": source}
            | {"documents": documents, "characters": characters}
            | {"bytes": characters // 3, "sha256": f"{characters:064x}"}
            for source, (documents, characters) in counts.items()
        ],
    }


MEASURED = {
    "texts": 745,
    "identifiers": {"labelled": 1251, "recall": 0.9512, "precision": 0.9775},
    "leak_rate": 0.1289,
    "recall_by_label": {"PERSON": {"labelled": 416, "found": 397}},
    "precision_by_kind": {"name": {"precision": 0.9774}},
}


def file(path, source, documents, dropped=None, broken=False, text=""):
    faults = [{"position": f"line 17 {text}", "reason": f"not well formed {text}"}] if text else []
    return {
        "path": path,
        "format": "PubMed XML" if source == "pubmed" else "other",
        "source": source,
        "documents": documents,
        "dropped": dropped or {},
        "fault_count": len(faults),
        "faults": faults,
        "broken": broken,
        "passed_over": None,
        "size": 65537,
    }


def flow(name, came, dropped, text):
    left = {source: count - dropped.get(source, 0) for source, count in came.items()}
    return {
        "name": name,
        "came": came,
        "left": left,
        "characters": {source: count * 1001 for source, count in left.items()},
        "dropped": {source: {"not_english": count} for source, count in dropped.items()},
        "samples": [sample(source, text, reason="not_english") for source in dropped],
        "tally": {},
    }


def sample(source, text, **more):
    return {"source": source, "id": f"id {text}", "detail": text, "text": text, **more}
