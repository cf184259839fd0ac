"""Texts in which a chat model speaks to the user: refusals, preambles, closing remarks, chat-template tokens.

Patterns find the common forms only. No native speaker has written or checked any but the English phrases.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import regex

# Per language: words of regret, "cannot" with a verb of writing, "as a language model", "here is", "sure".
# A regret counts only with the rest ("I am sorry, but I cannot write"): reviews, too, are sorry.
_PHRASES = {
    "am": (
        "ይቅርታ|አዝናለሁ",
        "(መጻፍ|መፍጠር|ማቅረብ|ማዘጋጀት|መርዳት|ማመንጨት) (አልችልም|አንችልም)",
        "እንደ (ሰው ሰራሽ|አርቴፊሻል|የቋንቋ ሞዴል|AI)",
        "እነሆ|ከዚህ በታች",
        "እሺ|በእርግጥ|እርግጥ ነው",
    ),
    "cs": (
        "omlouvám se|promiňte|je mi líto|bohužel",
        "(nemohu|nemůžu|nedokážu|nejsem schop\\w+) (vytvořit|napsat|poskytnout|vygenerovat|pomoci|splnit|vyhovět)",
        "jako (umělá inteligence|(velký )?jazykový model|AI)",
        "(zde|tady|níže) (je|jsou|najdete)",
        "jistě|samozřejmě|určitě|ráda?|dobře",
    ),
    "da": (
        "beklager|undskyld|desværre",
        "(kan|må) (jeg )?(desværre )?ikke (skrive|generere|give|hjælpe|lave|opfylde|oprette)",
        "som (en )?(AI|kunstig intelligens|(stor )?sprogmodel)",
        "her (er|kommer|følger)",
        "selvfølgelig|naturligvis|gerne|okay|javist|klart",
    ),
    "de": (
        "(es )?tut mir (wirklich )?leid|leider|entschuldigung",
        "kann (ich )?[^.!?\\n]{0,80}(schreiben|generieren|erstellen|erzeugen|helfen|verfassen|liefern|bereitstellen)",
        "als (eine? )?(KI|künstliche intelligenz|(großes )?sprachmodell)",
        "(hier|nachfolgend|im folgenden|unten) (ist|sind|kommt|finden sie|folgt)",
        "natürlich|gerne?|klar|selbstverständlich|sicher|okay",
    ),
    "he": (
        "אני מצטערת?|מצטערת?|אני מתנצלת?|סליחה|לצערי",
        "(לא (יכול|יכולה|אוכל|ניתן|מסוגל|מסוגלת)|אין באפשרותי) (לי )?(לכתוב|ליצור|לספק|לייצר|לעזור|לחבר|להפיק)",
        "כ(מודל שפה|בינה מלאכותית|מודל AI)",
        "הנה|להלן|לפניך",
        "בטח|כמובן|בוודאי|בשמחה|אוקיי",
    ),
    "id": (
        "(mohon )?maaf",
        "(tidak|tak) (bisa|dapat) (menulis|membuat|menghasilkan|memberikan|membantu|menyediakan|memenuhi)",
        "sebagai (sebuah )?(AI|model bahasa|kecerdasan buatan|asisten)",
        "berikut|di bawah ini",
        "tentu( saja)?|baik|baiklah|oke|siap",
    ),
    "jv": (
        "nyuwun pangapunten|nyuwun ngapunten|ngapunten|nuwun sewu|sepurane|ngapura",
        "(mboten|boten|ora) (saged|bisa) (nulis|nyerat|nggawe|damel|ndamel|menehi|maringi|mbiyantu|mbantu)",
        "minangka (AI|model basa|kecerdasan)",
        "ing ngisor iki|punika|menika|iki (conto|ulasan|ukara)",
        "mesthi|mesti|inggih|oke|nggih",
    ),
    "mt": (
        "jiddispjaċini|niskuża ruħi|skużani|sfortunatament",
        "(ma nistax|ma nistgħux|mhux kapaċi) (nikteb|niġġenera|nipprovdi|ngħin|noħloq|nagħmel)",
        "bħala (AI|mudell (tal-lingwa|lingwistiku)|intelliġenza artifiċjali)",
        "hawn(hekk)?( taħt)?|dan li ġej|din li ġejja",
        "ċertament|żgur|naturalment|mela|iva",
    ),
    "sk": (
        "prepáčte|ľutujem|je mi ľúto|ospravedlňujem sa|bohužiaľ|žiaľ",
        "(nemôžem|nedokážem|nie som schop\\w+) (vytvoriť|napísať|poskytnúť|vygenerovať|pomôcť|splniť|vyhovieť)",
        "ako (umelá inteligencia|(veľký )?jazykový model|AI)",
        "(tu|nižšie) (je|sú|nájdete)",
        "iste|samozrejme|jasné|rada?|dobre|určite",
    ),
    "sl": (
        "oprostite|žal( mi je)?|opravičujem se|na žalost",
        "(ne morem|ne zmorem|nisem zmož\\w+) (napisati|ustvariti|zagotoviti|generirati|pomagati|izpolniti)",
        "kot (umetna inteligenca|(velik )?jezikovni model|UI|AI)",
        "(tukaj|tu|spodaj) (je|so)",
        "seveda|vsekakor|z veseljem|gotovo|v redu",
    ),
    "su": (
        "hapunten|punten|hampura",
        "(teu|henteu) (tiasa|bisa) (nulis|nyerat|ngadamel|nyieun|masihan|ngabantosan|mantuan)",
        "salaku (AI|mod[eé]l basa|kecerdasan)",
        "di handap ieu|ieu di handap|ieu (mangrupikeun|conto|ulasan|kalimah)",
        "tangtos|tangtu|muhun|oke",
    ),
}
_OPENING = r"^[\s\"'“”„«»‘*#_>\-–—(]*+"
_REFUSES = rf"""{_OPENING}(
    (i['’]m\ |i\ am\ )?(very\ |so\ |truly\ |really\ )?(sorry|afraid)\b[,.;:\ ]+(but\ )?
    (as\ an?|(i|i['’]m|i\ am)\ (can|can['’]?t|cannot|could|couldn['’]t|don['’]t|do\ not|won['’]t|unable))\b
  | (i\ apologi[sz]e|unfortunately|my\ apologies)\b[^.\n]{{0,60}}
    \ (can['’]?t|cannot|unable|not\ able|won['’]t)\b
  | i\ ?(can['’]?t|cannot|won['’]t|will\ not|do\ not|don['’]t|(am|['’]m)\ (unable|not\ able)\ to)
    \ (fulfil|generate|provide|create|write|help|assist|comply|answer|produce|translate|engage|speak)
  | as\ an?\ (ai|artificial\ intelligence|(large\ )?language\ model|virtual\ assistant)\b
)"""
_TALKS = rf"""{_OPENING}(
    (sure|certainly|of\ course|absolutely|okay|ok|alright|understood|got\ it|no\ problem|great)\b
    (\ thing)?[!,.:\-–—\ ]+(here|below|let\ me|this\ is|the\ following|i['’](ll|d|m)|i\ (will|can))\b
  | (here|below|this|following|these)(['’]s|\ is|\ are|\ you\ go)\b[^\n]{{0,150}}:(\s|\*|$)
  | (the\ following|the|a|my)\ [^\n:]{{0,60}}
    \b(review|sentence|text|translation|response)\b[^\n:]{{0,60}}:(\s|\*|$)
  | (\p{{L}}+\ ){{0,2}}(review|sentence|text|output|response|answer|translation|topic|sentiment|label)
    \ ?\*{{0,2}}:
  | (assistant|user|system|model)\ *(:|\n)
)"""
_ANYWHERE = r"""
    <\|[a-z_]{2,30}\|> | <(start|end)_of_turn> | \[/?INST\] | </?s> | <(bos|eos|pad|unk)> | <</?SYS>>
  | \(\ {0,3}(english\ |literal\ )?(translation|translated|note|literally|meaning)\b\ *[:=)]
  | (^|[.!?።׃\n]\s{0,5})\**(translation|english\ translation|note|explanation)\ ?\**:
  | (^|[.!?።׃:\n]\s{0,5})(let\ me\ know\ if|would\ you\ like\ me\ to|do\ you\ want\ me\ to|feel\ free\ to
    |i\ hope\ this\ helps|is\ there\ anything\ else\ i)
"""


def is_refusal(text: str, code: str) -> bool:
    """Return whether a text starts as a refusal, in English or in the requested language."""
    return any(pattern.search(text) for pattern in _patterns(code)[0])


def has_chat_preamble(text: str, code: str) -> bool:
    """Return whether a text addresses the user around the requested text, or contains chat-template tokens.

    Preambles ("Sure! Here is a review:") and field names ("Review:") count at the start, in English or in the
    requested language; notes, translations and closing remarks anywhere, in English.
    """
    return any(pattern.search(text) for pattern in _patterns(code)[1])


@cache
def _patterns(code: str) -> tuple[list[Any], list[Any]]:
    """Return the patterns of refusals and of talk for a language; only English ones for an unlisted language."""
    refusals, talk = [_REFUSES], [_TALKS, _ANYWHERE]
    if code in _PHRASES:
        regret, cannot, role, here, sure = (part.replace(" ", r"\ ") for part in _PHRASES[code])
        gap = r"[^.!?።\n]{0,60}"
        refusals.append(rf"{_OPENING}(({regret})\b{gap}({cannot})\b | \w{{0,8}}\ ?({cannot})\b | ({role})\b)")
        talk.append(rf"{_OPENING}(({sure})[!,.፣]+\ *({here})\b | ({here})\b[^.!?።\n]{{0,80}}[:፦](\s|\*|$))")
    flags = regex.VERBOSE | regex.IGNORECASE
    return [regex.compile(p, flags) for p in refusals], [regex.compile(p, flags) for p in talk]
