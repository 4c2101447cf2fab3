"""Train: `python train.py +regularizer=dropout optimizer=adam`; `python train.py --help` lists what there is."""

from recipes.cli.train import main

if __name__ == "__main__":
    main()
