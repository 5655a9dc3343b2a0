"""`python -m nasseg`: the command line."""

from nasseg.cli import main

if __name__ == "__main__":
    main()
