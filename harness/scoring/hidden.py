"""How many texts hold characters that a reader does not see, or letters that look like others."""

from __future__ import annotations

from harness.scoring.bounds import share_interval
from harness.scoring.folding import hides
from harness.scoring.metrics import HIDDEN
from harness.scoring.scorer import ScorerOutput, ScoringContext, TextSample


class HiddenPart:
    """The share of texts with hidden characters; see ``hides``."""

    name = "hidden"
    human = True
    signature = "hidden|ignorable+controls+stray-marks+look-alikes|version:1"

    def score(self, sample: TextSample, place: ScoringContext) -> ScorerOutput:
        """Return ``HIDDEN``; kept: which texts hide something."""
        found = [hides(text) for text in sample.texts]
        if not found:
            return ScorerOutput([HIDDEN.score(None, self.signature, "no texts")])
        count, n = sum(found), len(found)
        interval = share_interval(count, n)
        score = HIDDEN.score(count / n, self.signature, interval=interval, detail={"texts": n})
        return ScorerOutput([score], {"hides": found})
