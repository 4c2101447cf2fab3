"""Measure a finished run again: `python evaluate.py RUN_FOLDER +inference=mc_dropout`; `--help` lists what there is."""

from recipes.cli.evaluate import main

if __name__ == "__main__":
    main()
