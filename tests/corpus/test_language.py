"""Texts in other languages go; what no one can tell the language of stays."""

import pickle
import struct
from pathlib import Path

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.language import LanguageConfig, LanguageFilter, language_of
from megatron_biollm.corpus.read import read_corpus
from megatron_biollm.corpus.report import CorpusReport
from megatron_biollm.corpus.steps import Drop

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "corpus"

OTHER_LANGUAGES = {
    "de": "Die Patienten wurden mit dem neuen Wirkstoff behandelt, und nach einem Jahr war der "
    "Blutdruck bei den meisten von ihnen nicht mehr erhöht.",
    "fr": "Les malades ont été traités par la nouvelle molécule pendant un an, et la tension "
    "artérielle de ces sujets est restée normale dans la plupart des cas.",
    "es": "Los enfermos recibieron el nuevo fármaco durante un año y la presión arterial de la "
    "mayoría se mantuvo normal, como en los estudios que ya fueron publicados.",
    "it": "I malati sono stati trattati con il nuovo farmaco e dopo un anno la pressione della "
    "maggior parte non era più alta, come negli studi del gruppo di controllo.",
    "pt": "Os doentes foram tratados com o novo fármaco e, depois de um ano, a pressão da maioria "
    "não era mais alta do que nos estudos que foram publicados pela equipa.",
    "nl": "De zieken werden met het nieuwe middel behandeld en na een jaar was de bloeddruk van "
    "de meesten niet meer te hoog, zoals ook uit het eerdere onderzoek bleek.",
    "pl": "Chorych leczono nowym lekiem, a po roku ciśnienie u większości z nich nie było już "
    "podwyższone, co jest zgodne z wynikami badań, które były ogłoszone przez zespół.",
    "cs": "Nemocní byli léčeni novým lékem a po roce se jejich krevní tlak snížil, což je ve shodě "
    "se studiemi, které byly publikovány, ale není to pro všechny jako lék.",
    "sv": "Patienterna behandlades med det nya läkemedlet och efter ett år var blodtrycket inte "
    "förhöjt hos de flesta, vilket är i linje med vad som har visats från andra studier.",
    "tr": "Hastalar yeni ilaç ile tedavi edildi ve bir yıl sonra çoğunun kan basıncı yüksek "
    "değil idi; bu sonuç daha önce yayımlanan çalışmalar gibi olumlu olarak görüldü.",
    "ru": "Больные получали новый препарат в течение года, и после лечения у большинства из них "
    "давление не было повышено, что отмечено и при других исследованиях.",
    "el": "Οι ασθενείς έλαβαν το νέο φάρμακο για ένα έτος και η αρτηριακή πίεση της πλειονότητας "
    "δεν ήταν πλέον υψηλή από την αρχή της μελέτης που είναι γνωστή.",
    "zh": "目的：探讨新药对高血压患者的疗效。对一百二十例患者进行一年的随访。结果：血压明显下降。",
    "ja": "新しい薬剤を投与したところ、ほとんどの患者で血圧は正常に保たれていた。",
    "ko": "환자들은 일 년 동안 새로운 약물로 치료를 받았으며 대부분의 혈압은 정상으로 유지되었다.",
    "ar": "تلقى المرضى الدواء الجديد لمدة عام وكان ضغط الدم لدى معظمهم طبيعيا بعد انتهاء العلاج.",
}

UNTELLABLE = {
    "gene list": "BRCA1, BRCA2, TP53, PTEN, CDH1, STK11, PALB2, ATM, CHEK2, NBN, BARD1, RAD51C, "
    "DES, DER, MET, LE, LA, UND, IST, VAN",
    "dose table": "Drug | Dose | Route\nAmoxicillin | 500 mg | PO\nCeftriaxone | 1 g | IV\n"
    "Vancomycin | 15 mg/kg | IV\nMetronidazole | 500 mg | PO",
    "chemical names": "2-acetoxybenzoic acid; N-(4-hydroxyphenyl)acetamide; (RS)-2-(4-(2-"
    "methylpropyl)phenyl)propanoic acid; 1,3,7-trimethylpurine-2,6-dione",
    "sequence": "MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSH",
    "two words": "Drug-induced pemphigus.",
    "Latin names": "Staphylococcus aureus, Streptococcus pneumoniae, Pseudomonas aeruginosa et al.",
    "numbers": "1.0 2.5 3.7 (95% CI 1.1-2.2)",
}


def judged(text: str, language: str | None = None, **settings) -> Document | Drop:
    document = Document(text=text, id="1", source="pubmed", language=language)
    return LanguageFilter(LanguageConfig(**settings))(document)


@pytest.mark.parametrize("code", OTHER_LANGUAGES)
def test_a_text_in_another_language_is_dropped_and_named(code):
    dropped = judged(OTHER_LANGUAGES[code])
    assert isinstance(dropped, Drop)
    assert dropped.reason == "language"
    assert dropped.detail.startswith(f"{code} ")


@pytest.mark.parametrize("code", OTHER_LANGUAGES)
def test_a_wanted_language_stays_and_is_noted(code):
    assert judged(OTHER_LANGUAGES[code], languages=[code]).language == code


@pytest.mark.parametrize("kind", UNTELLABLE)
def test_what_cannot_be_told_stays_as_it_is(kind):
    kept = judged(UNTELLABLE[kind])
    assert isinstance(kept, Document)
    assert kept.language is None


def test_english_stays_though_it_quotes_another_language():
    text = "The German word for it is Zwischenfall, as in der Fall; the patients were not harmed."
    assert judged(text).language == "en"
    assert judged(text, language="en").text == text


def test_the_text_overrules_the_source_where_it_is_sure():
    assert isinstance(judged(OTHER_LANGUAGES["fr"], language="en"), Drop)
    assert isinstance(judged("The patients were treated with it for a year.", "de"), Document)


def test_the_source_decides_where_the_text_cannot():
    assert judged("EBV-Erkrankungen.", language="de") == Drop("language", "de 1.00")
    assert judged("EBV diseases.", language="en").text == "EBV diseases."


def test_no_languages_keep_all():
    assert judged(OTHER_LANGUAGES["de"], languages=[]).language == "de"


def test_it_is_counted_what_told_the_language():
    judge = LanguageFilter(LanguageConfig())
    for text, stated in (("IL-6", None), ("IL-6", "en"), ("It was not what they had seen.", None)):
        judge(Document(text=text, id="1", source="pubmed", language=stated))
    assert judge.tally == {"undecided": 1, "source": 1, "text": 1}


def test_a_long_text_is_judged_in_no_time_by_samples_of_it():
    assert language_of("the cat was on the mat and " * 400_000, ["en"]).language == "en"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"languages": ["English"]}, "English"),
        ({"threshold": 2.0}, "threshold is 2.0"),
        ({"model": "/no/such.bin"}, "no file"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        LanguageConfig(**settings)


def model_file(words: dict[str, str]) -> bytes:
    """A fastText classifier of one dimension per language that knows each word's language.

    Written by its format (fastText's src/fasttext.cc, version 12), because training so small a
    model does not succeed every time.
    """
    codes = sorted(set(words.values()))
    entries = [(word, 0) for word in words] + [(f"__label__{code}", 1) for code in codes]
    arguments = (len(codes), 5, 5, 1, 5, 1, 3, 3, 0, 0, 0, 100)  # one-word features, softmax
    rows = [[10.0 * (words[word] == code) for code in codes] for word in words]
    outputs = [[1.0 * (one == other) for other in codes] for one in codes]
    return b"".join(
        (
            struct.pack("<ii12id", 793712314, 12, *arguments, 1e-4),
            struct.pack("<iiiqq", len(entries), len(words), len(codes), 100, -1),
            *(word.encode() + b"\0" + struct.pack("<qb", 10, kind) for word, kind in entries),
            *(matrix(values) for values in (rows, outputs)),
        )
    )


def matrix(rows: list[list[float]]) -> bytes:
    numbers = [number for row in rows for number in row]
    shape = struct.pack("<?qq", False, len(rows), len(rows[0]))
    return shape + struct.pack(f"<{len(numbers)}f", *numbers)


def test_a_model_file_is_asked_where_the_text_cannot_tell(tmp_path):
    pytest.importorskip("fasttext")
    german, english = "Herz Leber Niere Blut Gehirn", "heart liver kidney blood brain"
    known = dict.fromkeys(german.split(), "de") | dict.fromkeys(english.split(), "en")
    (tmp_path / "lid.bin").write_bytes(model_file(known))
    judge = LanguageFilter(LanguageConfig(model=str(tmp_path / "lid.bin")))
    given = Document(text=f"{german} {german}", id="1", source="text")
    assert judge(given).reason == "language"
    assert pickle.loads(pickle.dumps(judge))(given).detail.startswith("de ")
    assert judge(Document(text=f"{english} {english}", id="2", source="text")).language == "en"
    assert judge.tally == {"model": 2}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the sample corpus is not beside the checkout")
def test_no_english_abstract_among_the_samples_is_dropped():
    judge = LanguageFilter(LanguageConfig())
    files = [SHARED / "pubmed" / f"pubmed21n100{n}.xml.gz" for n in (0, 2, 4)]
    for document in read_corpus(files, CorpusReport()):
        if document.language == "en":
            assert isinstance(judge(document), Document), document.text
