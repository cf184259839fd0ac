"""The languages that the suites name: what to call them in a prompt, how to set them on a page."""

from __future__ import annotations

from dataclasses import dataclass


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


def language(code: str) -> Language:
    """Return what is known of ``code``; a language not listed is named by its code."""
    return LANGUAGES.get(code) or Language(code, code, code, "Zyyy")
