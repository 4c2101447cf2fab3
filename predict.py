"""Predict with finished runs: `python predict.py RUN_FOLDER data.path=FILE output=predictions.csv`; `--help` lists what there is."""

from recipes.cli.predict import main

if __name__ == "__main__":
    main()
