"""``python -m sphemb``: the command sphemb, with the working folder on the path."""

from sphemb.cli import main

if __name__ == "__main__":
    main()
