"""`python -m inferay.engine.scoring.environments SPEC ARGUMENTS`: Python in an environment.

SPEC is what `EnvironmentSpec.to_word` gives. The environment is built first, if it is not there;
then this process becomes its Python, with the arguments. So Ray starts a replica in one, on
whichever node.
"""

from __future__ import annotations

import os
import sys

from inferay.engine.scoring.environments import EnvironmentSpec, ensure
from inferay.errors import InferayError


def main() -> int:
    """Become the environment's Python; return the exit code where there is none."""
    try:
        python = ensure(EnvironmentSpec.from_word(sys.argv[1]))
    except InferayError as error:
        print("\n".join(filter(None, (error.details, error.message))), file=sys.stderr)
        return 1
    os.execv(python, [str(python), *sys.argv[2:]])


if __name__ == "__main__":
    sys.exit(main())
