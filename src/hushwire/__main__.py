"""`python -m hushwire` and the `hushwire` command."""

from hushwire.cli import main

if __name__ == "__main__":
    main()
