"""The way into the command, from the shell and as `python -m fastcheck`."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command and exit; what can't even be imported is a line and no wrong gradient."""
    try:
        from fastcheck.cli.command import main as command
    except KeyboardInterrupt:
        sys.exit(130)
    except BaseException as error:
        sys.stderr.write(f"fastcheck: it can't be loaded ({type(error).__name__}: {error})\n")
        sys.exit(2)
    command()


if __name__ == "__main__":
    main()
