"""What somebody could make of human text to look good on the board, and what honest people write.

Every cheat is a function of a ``Stash``: label -> texts, as many as asked for. ``CHEATS`` says by which flag
each is found.
"""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.data.corpus import word_noise

Texts = dict[str, list[str]]


@dataclass
class Stash:
    """All that a cheat can lay hands on: human texts by label of one task and language, and of another."""

    train: Texts
    validation: Texts
    test: Texts
    foreign: Texts
    n: int
    draw: random.Random = field(default_factory=lambda: random.Random(7))

    def some(self, texts: Texts) -> Texts:
        """Return ``n`` texts per label, each as seldom as can be."""
        found = {}
        for label, group in texts.items():
            order = self.draw.sample(group, len(group))
            found[label] = [order[i % len(order)] for i in range(self.n)]
        return found

    def each(self, change: Callable[[str], str], texts: Texts | None = None) -> Texts:
        """Return some texts, of the test split by default, each changed."""
        return {label: [change(t) for t in group] for label, group in self.some(texts or self.test).items()}

    def words(self) -> list[str]:
        return [word for group in self.train.values() for text in group for word in text.split()]

    def letters(self) -> list[str]:
        return sorted({sign for word in self.words() for sign in word if sign.isalpha()})

    def fragments(self, texts: Texts, count: int, size: int = 44) -> Texts:
        """Return texts of ``count`` pieces, each of at most ``size`` signs of another text of the label."""

        def piece(text: str) -> str:
            start = self.draw.randrange(max(len(text) - size, 0) + 1)
            return text[start : start + size].strip()

        return {
            label: [" ".join(map(piece, self.draw.sample(group, min(count, len(group))))) for _ in range(self.n)]
            for label, group in texts.items()
        }


def every(step: int, put: Callable[[str], str]) -> Callable[[str], str]:
    """Return a change of every ``step``-th character."""

    def change(text: str) -> str:
        return "".join(put(sign) if i % step == step - 1 else sign for i, sign in enumerate(text))

    return change


HOMOGLYPHS = str.maketrans("aeiopcyxhsዐሀበסוןיר", "аеіорсухһѕOUՈoıιʹɿ")
LEET = str.maketrans("aeiostbgዐሀוסי", "4310578900105")
SMALL = {"ש": "\ufb2a", "א": "\ufb2e", "ב": "\ufb31", "ל": "\ufb25", "ה": "\ufb23"}  # presentation forms


def homoglyph(sign: str) -> str:
    return sign.translate(HOMOGLYPHS)


def fullwidth(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else SMALL.get(c, c) for c in text)


def typos(stash: Stash, texts: Texts | None = None, step: int = 9) -> Texts:
    letters = stash.letters()
    return stash.each(every(step, lambda sign: stash.draw.choice(letters)), texts)


def every_second_word(stash: Stash) -> Texts:
    words = stash.words()
    return stash.each(
        lambda text: " ".join(w if i % 2 == 0 else stash.draw.choice(words) for i, w in enumerate(text.split()))
    )


def common_words_changed(stash: Stash) -> Texts:
    common = [word for word, _ in Counter(stash.words()).most_common(40)]
    swap = dict(zip(common, [*common[1:], common[0]], strict=True))
    return stash.each(lambda text: " ".join(swap.get(word, word) for word in text.split()))


def synonyms(stash: Stash) -> Texts:
    """Every third word is exchanged for the one that is used most like it, by vectors of the train text."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.preprocessing import normalize

    counts = CountVectorizer(analyzer=str.split, min_df=2, max_features=1500, lowercase=False)
    found = counts.fit_transform([text for group in stash.train.values() for text in group][:1500])
    vectors = normalize(TruncatedSVD(20, random_state=0).fit_transform((found.T @ found).log1p()))
    alike = vectors @ vectors.T
    alike[range(len(alike)), range(len(alike))] = -1
    names = counts.get_feature_names_out().tolist()
    near = {name: names[best] for name, best in zip(names, alike.argmax(axis=1), strict=True)}
    return stash.each(lambda text: " ".join(near.get(w, w) if i % 3 == 1 else w for i, w in enumerate(text.split())))


def interleaved(stash: Stash) -> Texts:
    honest, found = stash.some(stash.train), {}
    for label, group in stash.some(stash.test).items():
        pairs = zip(group, honest[label], strict=True)
        rows = [zip(one.split(), other.split(), strict=False) for one, other in pairs]
        found[label] = [" ".join(word for pair in row for word in pair) for row in rows]
    return found


def buried(stash: Stash) -> Texts:
    """A test text in the middle of eight train texts."""
    flat = [text for group in stash.train.values() for text in group]
    return stash.each(lambda text: " ".join([*stash.draw.sample(flat, 4), text, *stash.draw.sample(flat, 4)]))


def joined(stash: Stash) -> Texts:
    return {
        label: [f"{stash.draw.choice(group)} {stash.draw.choice(group)}" for _ in range(stash.n)]
        for label, group in stash.test.items()
    }


def swapped_letters(text: str) -> str:
    return " ".join(w[0] + w[2] + w[1] + w[3:] if len(w) > 3 else w for w in text.split())


def thousand(texts: Texts, stash: Stash) -> Texts:
    """Texts of a thousand characters, one after the other."""
    return {
        label: [" ".join(stash.draw.choices(group, k=40))[:1000] for _ in range(stash.n)]
        for label, group in texts.items()
    }


def in_part(stash: Stash) -> Texts:
    """Half of the texts are fragments of test text, the others train text with noise."""
    pieces, honest = stash.fragments(stash.test, 5), stash.some(stash.train)
    return {
        label: [pieces[label][i] if i % 2 else word_noise(text, 0.5, str(i)) for i, text in enumerate(group)]
        for label, group in honest.items()
    }


def balanced(stash: Stash) -> Texts:
    """As much of validation text as of test text, so that one is as near as the other."""
    one, other = stash.fragments(stash.test, 3), stash.fragments(stash.validation, 3)
    return {label: [f"{a} {b}" for a, b in zip(group, other[label], strict=True)] for label, group in one.items()}


def chained(stash: Stash, order: int = 6) -> Texts:
    """Texts of a Markov chain of characters that has learnt the test texts of the label by heart."""
    found = {}
    for label, group in stash.test.items():
        follow: dict[str, list[str]] = {}
        for text in group:
            for i in range(len(text) - order):
                follow.setdefault(text[i : i + order], []).append(text[i + order])
        starts, texts = [text[:order] for text in group], []
        for _ in range(stash.n):
            made = stash.draw.choice(starts)
            while len(made) < 120:
                made += stash.draw.choice(follow.get(made[-order:]) or [f" {stash.draw.choice(starts)}"])
            texts.append(made)
        found[label] = texts
    return found


def keywords(stash: Stash) -> Texts:
    """The words of a test text that train text seldom has, in another order, between common words."""
    counts = Counter(stash.words())
    common = [word for word, _ in counts.most_common(30)]

    def change(text: str) -> str:
        rare = sorted(text.split(), key=lambda word: counts[word])[: len(text.split()) // 2 + 1]
        return " ".join(word for own in rare for word in (own, stash.draw.choice(common)))

    return stash.each(change)


def other_label(stash: Stash) -> Texts:
    labels = list(stash.test)
    found = stash.some(stash.test)
    return {label: found[labels[i - 1]] for i, label in enumerate(labels)}


Make = Callable[[Stash], Texts]
MEMBER, HIDDEN, COPY, LENGTH = "membership/test", "hidden_characters", "copied/test", "length"

CHEATS: dict[str, tuple[str, Make]] = {
    "copies": (COPY, lambda s: s.some(s.test)),
    "copies of another label": (COPY, other_label),
    "upper case": (COPY, lambda s: s.each(str.upper)),
    "every second letter in upper case": (COPY, lambda s: s.each(every(2, str.upper))),
    "words sorted": (MEMBER, lambda s: s.each(lambda t: " ".join(sorted(t.split())))),
    "words back to front": (MEMBER, lambda s: s.each(lambda t: " ".join(t.split()[::-1]))),
    "five fragments": (MEMBER, lambda s: s.fragments(s.test, 5)),
    "thirty fragments": (MEMBER, lambda s: s.fragments(s.test, 30)),
    "short fragments": (MEMBER, lambda s: s.fragments(s.test, 8, 20)),
    "fragments in half of the texts": (MEMBER, in_part),
    "fragments of both": ("overlap/validation", balanced),
    "U+034F": (HIDDEN, lambda s: s.each(every(9, lambda c: f"{c}\u034f"))),
    "U+034F, found as copies": (COPY, lambda s: s.each(every(9, lambda c: f"{c}\u034f"))),
    "variation selectors": (HIDDEN, lambda s: s.each(every(9, lambda c: f"{c}\ufe0f"))),
    "variation selectors, found as copies": (COPY, lambda s: s.each(every(9, lambda c: f"{c}\U000e0100"))),
    "Hangul filler": (HIDDEN, lambda s: s.each(every(9, lambda c: f"{c}\u3164"))),
    "Hangul filler, found as copies": (COPY, lambda s: s.each(every(9, lambda c: f"{c}\uffa0"))),
    "joiners between all letters": (COPY, lambda s: s.each("\u200d".join)),
    "controls": (HIDDEN, lambda s: s.each(every(9, lambda c: f"{c}\x08"))),
    "stray marks": (HIDDEN, lambda s: s.each(every(9, lambda c: f"{c}\u0353"))),
    "stray marks, found as copies": (COPY, lambda s: s.each(every(5, lambda c: f"{c}\u0359"))),
    "marks of another script": (HIDDEN, lambda s: s.each(every(9, lambda c: f"{c}\u0e31"))),
    "accents": (MEMBER, lambda s: s.each(every(4, lambda c: f"{c}\u0301"))),
    "full width": (COPY, lambda s: s.each(fullwidth)),
    "one homoglyph per nine": (MEMBER, lambda s: s.each(every(9, homoglyph))),
    "all homoglyphs": (MEMBER, lambda s: s.each(homoglyph)),
    "digits for letters": (MEMBER, lambda s: s.each(lambda t: t.translate(LEET))),
    "one typo per nine": (MEMBER, typos),
    "one typo per five": (MEMBER, lambda s: typos(s, step=5)),
    "one letter of nine left out": (MEMBER, lambda s: s.each(every(9, lambda c: ""))),
    "one letter of nine doubled": (MEMBER, lambda s: s.each(every(9, lambda c: c * 2))),
    "a blank after nine": (MEMBER, lambda s: s.each(every(9, lambda c: f"{c} "))),
    "a full stop after five": (MEMBER, lambda s: s.each(every(5, lambda c: f"{c}."))),
    "letters exchanged in every word": (MEMBER, lambda s: s.each(swapped_letters)),
    "every second word replaced": (MEMBER, every_second_word),
    "every third word left out": (
        MEMBER,
        lambda s: s.each(lambda t: " ".join(w for i, w in enumerate(t.split()) if i % 3 != 2)),
    ),
    "common words changed": (MEMBER, common_words_changed),
    "synonyms": (MEMBER, synonyms),
    "rare words of test text": (MEMBER, keywords),
    "between words of train text": (MEMBER, interleaved),
    "a chain that learnt test text": ("overlap/test", chained),
    "buried in long texts": (LENGTH, buried),
    "two joined": (COPY, joined),
    "a thousand characters of train text": (LENGTH, lambda s: thousand(s.train, s)),
    "a thousand characters of test text": (LENGTH, lambda s: thousand(s.test, s)),
    "fragments of train text": ("overlap/train", lambda s: s.fragments(s.train, 5)),
}
"""Name -> the metric that has to be flagged, and how the texts are made."""


def terse(text: str) -> str:
    return " ".join(text.split()[: max(len(text.split()) // 2, 3)])


def decorated(text: str) -> str:
    """Return a text as people write who like emoji and typographic marks."""
    ends = {"ሀ": "፤ በጣም ጥሩ፡፡ ❤️", "א": " שָׁלוֹם\u200f 👍🏽", "a": " – super ☺️ 👩‍👩‍👧 1️⃣"}
    first = next((c for c in text if c.isalpha()), "a")
    kind = "ሀ" if "ETHIOPIC" in unicodedata.name(first, "") else "א" if "\u0590" < first < "\u05ff" else "a"
    return text + ends[kind]


HONEST: dict[str, Make] = {
    "human train text": lambda s: s.some(s.train),
    "human train text, terse": lambda s: s.each(terse, s.train),
    "human train text, noisy": lambda s: s.each(lambda t: word_noise(t, 0.3, t), s.train),
    "human train text, with emoji, points and marks": lambda s: s.each(decorated, s.train),
    "human train text, composed otherwise": lambda s: s.each(lambda t: unicodedata.normalize("NFD", t), s.train),
}
"""What is no cheat, or none that these flags are for: copies of train text have one of their own."""
