"""Write a finished run as one file for use elsewhere: `python export.py RUN_FOLDER format=onnx output=model.onnx`; `--help` lists what there is."""

from recipes.cli.export import main

if __name__ == "__main__":
    main()
