"""`python -m probe` is the `lightning` command."""

import sys

try:
    from probe.cli.main import main
except KeyboardInterrupt:  # later ones are dealt with in `main`
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
