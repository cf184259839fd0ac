"""The harmonic mean of two aggregated shares: high only where both are."""

from __future__ import annotations


def harmonic(share: float, relevance: float) -> float:
    """Return 2 S R / (S + R); 0 where either is 0 or less.

    For aggregates alone (CLaS-Bench, arXiv 2601.08331): of single answers it would count only those that are
    right in both ways, and that is another number.
    """
    return 2 * share * relevance / (share + relevance) if share > 0 and relevance > 0 else 0.0
