"""``python -m hdi ...`` is ``hdi ...``."""

from hdi.cli import main

if __name__ == "__main__":
    main()
