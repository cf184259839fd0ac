"""The language of an lm-eval task, read from its name."""

from __future__ import annotations

import re

from harness.core.languages import FLORES, LANGUAGES

OURS = re.compile(r"steerboard_(?P<task>.+)_(?P<language>[a-z]{2,3})")
"""How the tasks that steerboard ships are called."""

_NAMES = {language.name.lower(): code for code, language in LANGUAGES.items()}
_LONG = {FLORES[code].split("_")[0]: code for code in LANGUAGES} | _NAMES
_PROMPT = re.compile(r"few_shot_en|en_cot")  # says what language the prompt is in, not the text
_FOREIGN = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")  # the FLORES code of some language
_MARK = "scriptmark"  # stands for the script of such a code; no name has it
_ISO_639_1 = """
aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv
dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie
ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv
mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm
rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts
tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
_CODES = frozenset(_ISO_639_1.split())


def language_of(task_name: str | None) -> str | None:
    """Return the language that a task's name names, None for none or one that steerboard does not know.

    Ours end with it (``steerboard_topic_am``). Elsewhere it is a part of the name: an English name or an
    ISO 639-3 code (``include_base_44_hebrew_stem``, ``belebele_amh_Ethi``), else an ISO 639-1 code
    (``xnli_de``, ``global_mmlu_full_id_law``). Of several the last counts: of a translation the
    language it goes to.
    """
    if not task_name:
        return None
    if own := OURS.fullmatch(task_name):
        code = own["language"]
        return code if code in LANGUAGES else None
    name = _PROMPT.sub("", task_name)
    found = _long_forms(name) or _short_forms(name)
    return found[-1] if found else None


def _long_forms(name: str) -> list[str | None]:
    """Return the languages that are named by a word or by three letters, in order; None for a foreign one."""
    marked = _FOREIGN.sub(lambda code: f"_{code[0][:3]}_{_MARK}_", name)
    parts = _parts(marked)
    pairs = zip(parts, [*parts[1:], ""], strict=True)
    return [_LONG.get(part) for part, after in pairs if part in _LONG or after == _MARK]


def _short_forms(name: str) -> list[str | None]:
    """Return the languages that are named by two letters, in order; None for a foreign one."""
    parts = _parts(name)
    found = [part for part in parts if part in _CODES]
    if len(found) > 1 or parts[-1] != "mt":  # mt mostly stands for machine translation, not for Maltese
        found = [part for part in found if part != "mt"]
    return [part if part in LANGUAGES else None for part in found]


def _parts(name: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", name.lower())
