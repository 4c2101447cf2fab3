"""Compare: `python compare.py FOLDERS`; `python compare.py --help` shows examples."""

from recipes.cli.compare import main

if __name__ == "__main__":
    main()
