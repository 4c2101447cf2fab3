"""The names of the files in a run's folder and in a sweep's: they stand here and nowhere else. Nothing here imports torch.

What is in the files, and their version, is told by `recipes/store/folder.py`, `plan.py` and `shapes.py`.
"""

CONFIG = "config.yaml"  # resolved, under the command that repeats the run
RESULT = "result.json"  # status, metrics, history: all that comparisons read
METRICS = "metrics.csv"  # a row a step that was logged
HISTOGRAMS = "histograms.csv"
CONFUSION = "confusion.json"  # of the test split
TEST = "test.json"  # what else the test has counted, see recipes/store/tested.py
PICTURE = "run.png"  # the curves of the run
LOG = "train.log"  # held by the process that trains there
OUTPUT = "output.log"  # what a sweep's job has printed
SLURM_JOB = "slurm-job.txt"  # a job's number in Slurm's queue
CHECKPOINTS, PICTURES, WANDB, TENSORBOARD, ERRORS = "checkpoints", "pictures", "wandb", "tensorboard", "errors"  # folders
BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"  # in the folder of checkpoints

JOBS = "jobs.yaml"  # a sweep's plan
SWEEP_LOG = "sweep.log"
MULTIRUN = "multirun.yaml"  # Hydra's own account of a sweep
STUDY = "study.log"  # Optuna's journal of a search
