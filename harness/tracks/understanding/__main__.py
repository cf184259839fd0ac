"""``python -m harness.tracks.understanding``: the command ``lm_eval`` with the model type ``steerboard``.

What the user got wrong of ours is one line on stderr and exit code 2, as with ``steerboard`` itself.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from harness.core.errors import UserError, not_installed


def main() -> None:
    """Run lm-eval's command line; it ends as lm-eval ends."""
    try:
        from lm_eval.__main__ import cli_evaluate

        import harness.tracks.understanding.lm  # noqa: F401 (registers the model type)

        cli_evaluate()
    except UserError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        missing = not_installed(error)
        if missing is None:
            raise
        _fail(missing)


def _fail(error: UserError) -> NoReturn:
    print(f"steerboard: {' '.join(str(error).split())}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
