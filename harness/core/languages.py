"""The languages of the suites: their names in prompts and their script and direction on pages."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from harness.core.errors import UserError, unknown


@dataclass(frozen=True)
class Language:
    """One language. ``code`` is ISO 639-1, ``script`` ISO 15924."""

    code: str
    name: str
    native_name: str
    script: str

    @property
    def direction(self) -> str:
        """The HTML ``dir`` of its text: ``rtl`` or ``ltr``."""
        return "rtl" if self.script in {"Hebr", "Arab"} else "ltr"


_KNOWN = (
    Language("am", "Amharic", "አማርኛ", "Ethi"),
    Language("cs", "Czech", "čeština", "Latn"),
    Language("da", "Danish", "dansk", "Latn"),
    Language("de", "German", "Deutsch", "Latn"),
    Language("en", "English", "English", "Latn"),
    Language("he", "Hebrew", "עברית", "Hebr"),
    Language("id", "Indonesian", "Bahasa Indonesia", "Latn"),
    Language("jv", "Javanese", "Basa Jawa", "Latn"),
    Language("mt", "Maltese", "Malti", "Latn"),
    Language("sk", "Slovak", "slovenčina", "Latn"),
    Language("sl", "Slovenian", "slovenščina", "Latn"),
    Language("su", "Sundanese", "Basa Sunda", "Latn"),
)
LANGUAGES = {language.code: language for language in _KNOWN}

FLORES = {
    "am": "amh_Ethi",
    "cs": "ces_Latn",
    "cy": "cym_Latn",
    "da": "dan_Latn",
    "de": "deu_Latn",
    "en": "eng_Latn",
    "he": "heb_Hebr",
    "id": "ind_Latn",
    "jv": "jav_Latn",
    "mt": "mlt_Latn",
    "sk": "slk_Latn",
    "sl": "slv_Latn",
    "su": "sun_Latn",
    "zh": "zho_Hans",
}
"""FLORES-200 codes of the languages above and of pivots for translation, by ISO 639-1 code."""

_MIN_SIMILARITY = 0.7  # of a name to be suggested, of 1
_FORMER = {"he": "iw", "id": "in", "jv": "jw"}  # withdrawn codes that some models still use
_MANDARIN = {"zh": ["cmn_Hans", "cmn"]}


def language(code: str) -> Language:
    """Return the language of ``code``; one that is not listed is named by its code."""
    return LANGUAGES.get(code) or Language(code, code, code, "Zyyy")


def unknown_language(value: str, valid: Iterable[str], hint: str = "", kind: str = "language") -> UserError:
    """Return the error for a language that is not one of ``valid``, with the likely code.

    It is found by English and native names, ISO 639-3, FLORES-200 and withdrawn codes.
    """
    codes = [code for code in valid if code in LANGUAGES]
    forms: dict[str, str] = {}
    for code in codes:
        own = LANGUAGES[code]
        for form in (code, own.name, own.native_name, *code_forms(code)):
            forms.setdefault(form.casefold(), code)
    near = difflib.get_close_matches(value.strip().casefold(), forms, n=1, cutoff=_MIN_SIMILARITY)
    return unknown(kind, value, valid, hint, [forms[near[0]]] if near else None)


def check_known(kind: str, values: Iterable[str] | None, valid: Collection[str], hint: str = "") -> None:
    """Raise ``UserError`` for the first value that is not one of ``valid``, with the likely one; None has none."""
    for value in values or ():
        if value not in valid:
            raise unknown_language(value, valid, hint) if kind == "language" else unknown(kind, value, valid, hint)


def code_forms(code: str) -> list[str]:
    """Return the codes of a language in translation models, ``code`` itself first.

    For an ISO 639-1 or FLORES-200 code of a known language: ISO 639-1, FLORES-200, ISO 639-3, a withdrawn ISO code,
    and for Chinese the code of Mandarin.
    """
    iso = next((short for short, flores in FLORES.items() if code in {short, flores}), None)
    if iso is None:
        return [code]
    forms = [code, iso, FLORES[iso], FLORES[iso].split("_")[0], _FORMER.get(iso), *_MANDARIN.get(iso, [])]
    return list(dict.fromkeys(form for form in forms if form))
