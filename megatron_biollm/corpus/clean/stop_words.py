"""The commonest small words of languages that biomedical sources are written in.

Each list is about thirty words that carry grammar, not matter; words that several languages share
stand in each of them and so decide nothing between these. Left out are words of one Latin letter
(symbols) and from the other lists those that are spelt as English words (die, was, in, to, men).
Made by hand for this project.
"""

from __future__ import annotations

_LISTS = {
    "en": (
        "the of and to in is was were with for that by on as are this from or at be which an "
        "not have has had we these their it than after between no he she his her been i you "
        "my your do did does will would can could if but so when what who there"
    ),
    "de": (
        "der das und den von zu mit des ist bei im nicht eine ein einer eines als für auf "
        "wurde wurden werden auch sich nach oder dem durch aus wird zur zum über sind es"
    ),
    "fr": (
        "le la les des de du et en une un est dans pour par sur que qui au aux avec ou ce "
        "cette sont plus pas chez été ont nous ces entre leur il était"
    ),
    "es": (
        "el la los las de del en un una que con por para se es al como más su fue son entre "
        "lo sus está fueron pacientes este esta sobre"
    ),
    "it": (
        "il la lo gli le di del della dei delle un una che con al alla da dal nel nella si "
        "non sono come più tra sul questo stato stati ed"
    ),
    "pt": (
        "os de da dos das em um uma que com por para na nos nas se foi ao são mais não como "
        "entre sua foram ou pela pelo"
    ),
    "nl": (
        "de het een en van dat op te met voor zijn niet aan er bij werd door als ook naar uit "
        "worden deze wordt tot om geen"
    ),
    "sv": (
        "och att det som en på är av för med till den har de inte om ett var vid från kan hos "
        "eller efter under sig vara"
    ),
    "da": (
        "og det som en på er af med til den har de ikke om et var ved fra kan hos eller efter "
        "under sig blev der"
    ),
    "no": (
        "og det som en på er av med til den har de ikke om et var ved fra kan hos eller etter "
        "under seg ble"
    ),
    "pl": (
        "na się że jest nie po od za przez oraz dla są jak lub ze był przy tym także było "
        "które który ich"
    ),
    "cs": (
        "na se je že po pro za od byl byla jsou nebo při ve jako jeho které který není ale jejich"
    ),
    "hu": (
        "az és hogy nem egy volt meg de ez azt el vagy csak mint még már ki több után között "
        "amely során illetve"
    ),
    "tr": (
        "ve bir bu ile için olarak da de olan en daha çok gibi hastalarda arasında ise veya "
        "sonra kadar göre olduğu edildi değil"
    ),
    "ro": (
        "și de la în cu un pe care din este pentru sau mai nu se fost sunt că prin al ale "
        "după au ca între"
    ),
    "fi": (
        "ja oli että ei se joka sekä tai olivat ovat kuin myös mutta voi hän sen potilaan "
        "jälkeen mukaan ollut"
    ),
    "ru": "и в на с по не для при из что у от к за как это или до после а были было между",
    "uk": "і в на з та що не для при від до у як за це або після були було між",
    "el": "και το της η του στην να με για από την ο των τα στο είναι που τον",
}
# By ISO 639-1 code, in lower case.
STOP_WORDS = {code: frozenset(words.split()) for code, words in _LISTS.items()}

# Scripts that tell the language by themselves; the first that holds most letters counts.
SCRIPTS: dict[str, str] = {
    "ja": "\u3040-\u30ff",
    "ko": "\uac00-\ud7af\u1100-\u11ff",
    "zh": "\u4e00-\u9fff\u3400-\u4dbf",
    "ar": "\u0600-\u06ff",
    "he": "\u0590-\u05ff",
    "hi": "\u0900-\u097f",
    "th": "\u0e00-\u0e7f",
    "ka": "\u10a0-\u10ff",
    "hy": "\u0530-\u058f",
}
