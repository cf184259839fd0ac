"""The languages that the suites name: what to call them in a prompt, how to set them on a page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """One language. ``code`` is ISO 639-1, ``script`` ISO 15924, ``flores`` the FLORES-200 code."""

    code: str
    name: str
    native_name: str
    script: str
    flores: str

    @property
    def direction(self) -> str:
        """The HTML ``dir`` of its text: ``rtl`` or ``ltr``."""
        return "rtl" if self.script in {"Hebr", "Arab"} else "ltr"


_KNOWN = (
    Language("am", "Amharic", "አማርኛ", "Ethi", "amh_Ethi"),
    Language("cs", "Czech", "čeština", "Latn", "ces_Latn"),
    Language("da", "Danish", "dansk", "Latn", "dan_Latn"),
    Language("de", "German", "Deutsch", "Latn", "deu_Latn"),
    Language("en", "English", "English", "Latn", "eng_Latn"),
    Language("he", "Hebrew", "עברית", "Hebr", "heb_Hebr"),
    Language("id", "Indonesian", "Bahasa Indonesia", "Latn", "ind_Latn"),
    Language("jv", "Javanese", "Basa Jawa", "Latn", "jav_Latn"),
    Language("mt", "Maltese", "Malti", "Latn", "mlt_Latn"),
    Language("sk", "Slovak", "slovenčina", "Latn", "slk_Latn"),
    Language("sl", "Slovenian", "slovenščina", "Latn", "slv_Latn"),
    Language("su", "Sundanese", "Basa Sunda", "Latn", "sun_Latn"),
)
LANGUAGES = {language.code: language for language in _KNOWN}


def language(code: str) -> Language:
    """Return what is known of ``code``; a language not listed is named by its code."""
    return LANGUAGES.get(code) or Language(code, code, code, "Zyyy", code)
