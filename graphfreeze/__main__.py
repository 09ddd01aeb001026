"""`python -m graphfreeze`: the command line."""

from graphfreeze.cli import main

if __name__ == "__main__":
    main()
