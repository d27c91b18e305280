"""``python run_mvp_verification.py ...`` is ``hdi verify ...``."""

import sys

if __name__ == "__main__":
    try:
        from hdi.cli import main
    except ModuleNotFoundError as missing:
        sys.exit(
            f"hdi is not installed for {sys.executable} ({missing.name} is missing).\n"
            "`make demo` installs it into .venv; then: source .venv/bin/activate"
        )
    sys.argv.insert(1, "verify")
    main()
