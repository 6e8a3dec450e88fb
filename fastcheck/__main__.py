"""`python -m fastcheck` is the command."""

from fastcheck.cli import main

if __name__ == "__main__":
    main()
