"""`python -m gptoss_convert` is `gptoss-convert`."""

from .convert.cli import main

if __name__ == "__main__":
    main()
