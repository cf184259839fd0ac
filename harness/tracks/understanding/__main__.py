"""``python -m harness.tracks.understanding``: the command ``lm_eval`` with the model type ``steerboard``.

A ``UserError`` is one line on stderr and exit code 2, as in ``steerboard`` itself.
"""

from __future__ import annotations

import sys

from harness.core.errors import UserError, not_installed


def main() -> None:
    """Run lm-eval's command line; it ends as lm-eval ends."""
    try:
        from lm_eval.__main__ import cli_evaluate

        import harness.tracks.understanding.lm  # noqa: F401 (registers the model type)

        cli_evaluate()
    except (UserError, ModuleNotFoundError) as error:
        known = error if isinstance(error, UserError) else not_installed(error)
        if known is None:
            raise
        print(f"steerboard: {' '.join(str(known).split())}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
