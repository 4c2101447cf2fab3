import random
import re
import string
from copy import deepcopy
from difflib import SequenceMatcher

import pytest
import yaml

from plugins.errors import RecipeError
from recipes.config import untrusted
from recipes.config.catalogue import Catalogue
from recipes.config.changing import ON_EVALUATION, ON_RESUME, change, read_run
from recipes.config.composing import check, resolve
from recipes.config.searching import register

CATALOGUE = Catalogue()
OPTIONS = [option for group, options in CATALOGUE.groups.items() for option in options.values() if group != "recipe"]
NAMES = [f"{option.group}-{option.name}" for option in OPTIONS]


def composed(*words, catalogue=CATALOGUE):
    """The config that a run with these words gets."""
    return resolve(catalogue, check(catalogue, words))


def refused(*words, catalogue=CATALOGUE, multirun=False):
    """The message about words that cannot be right."""
    with pytest.raises(RecipeError) as caught:
        check(catalogue, words, multirun)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def recipes(tmp_path):
    """A catalogue with a recipe, in a config folder of its own."""

    def write(**files):
        for name, text in files.items():
            (tmp_path / "recipe").mkdir(exist_ok=True)
            (tmp_path / "recipe" / f"{name}.yaml").write_text(f"# @package _global_\n# A recipe.\n{text}")
        register([("test", tmp_path)])
        return Catalogue([("test", tmp_path)])

    yield write
    register([])


BOTH = """
defaults:
  - /regularizer: [dropout]
  - override /optimizer: momentum
optimizer:
  lr: 0.5
  momentum: 0.8
regularizer:
  dropout:
    p: 0.2
"""


def test_the_defaults():
    plain = composed()
    assert plain["data"]["_target_"].endswith("Digits") and plain["model"]["_target_"].endswith("MLP")
    assert plain["optimizer"]["_target_"] == "torch.optim.SGD" and list(plain["logger"]) == ["wandb"]
    assert set(CATALOGUE.keys) == {
        "seed",
        "max_epochs",
        "max_steps",
        "max_time",
        "resume",
        "overwrite",
        "sweep",
        "explain",
        "tune",
        "name",
        "tags",
        "notes",
    }
    assert set(plain) == {*CATALOGUE.keys, *CATALOGUE.defaults} - {"recipe"}


def test_natural_spellings():
    assert list(composed("+regularizer=dropout")["regularizer"]) == ["dropout"]
    both = composed("+regularizer=[dropout,l2]", "regularizer.dropout.p=0.3")["regularizer"]
    assert both["dropout"]["p"] == 0.3 and list(both) == ["dropout", "l2"]
    assert composed("optimizer=adam", "optimizer.lr=1e-3")["optimizer"]["lr"] == 0.001
    assert composed("optimizer.lr=1")["optimizer"]["lr"] == 1
    assert composed("data.batch_size=full")["data"]["batch_size"] == "full"
    assert composed("trainer.devices=auto", "tags=[a,b]", "name=x")["tags"] == ["a", "b"]
    assert composed("optimizer.lr=${trainer.num_nodes}")["optimizer"]["lr"] == 1


def test_additions_written_apart_are_joined():
    assert list(composed("+regularizer=dropout", "+regularizer=[l2]")["regularizer"]) == ["dropout", "l2"]
    assert check(CATALOGUE, ["+regularizer=dropout", "seed=1", "+regularizer=l2"]) == ["+regularizer=[dropout,l2]", "seed=1"]


@pytest.mark.parametrize(
    ("words", "loggers"),
    [
        (["logger=csv"], ["csv"]),
        (["logger=[csv,wandb]"], ["csv", "wandb"]),
        (["logger=[]"], []),
        (["+logger=csv"], ["csv", "wandb"]),
    ],
)
def test_loggers(words, loggers):
    assert sorted(composed(*words)["logger"]) == loggers


def misspellings(name):
    """Typing slips that leave the name recognizable."""
    letter = random.choice(string.ascii_lowercase)
    yield name + letter
    if len(name) >= 5:
        place = random.randrange(1, len(name) - 1)
        yield name[:place] + name[place + 1 :]
        yield name[:place] + name[place + 1] + name[place] + name[place + 2 :]
        yield name.capitalize()


def similarity(name, wrong):
    return SequenceMatcher(None, name, wrong.lower()).ratio()


@pytest.mark.parametrize("option", OPTIONS, ids=NAMES)
def test_a_misspelt_option_is_caught_with_the_right_name(option):
    plus = "" if option.group in CATALOGUE.defaults else "+"
    all_names = {name for options in CATALOGUE.groups.values() for name in options}
    for wrong in set(misspellings(option.name)) - all_names:
        message = refused(f"{plus}{option.group}={wrong}")
        assert f"{option.group} has no option {wrong}" in message
        meant = re.search(rf"did you mean {re.escape(plus)}{option.group}=(\w+)\?", message)[1]
        assert meant == option.name or similarity(meant, wrong) >= similarity(option.name, wrong)  # as between adam and adamw


@pytest.mark.parametrize("group", CATALOGUE.groups)
def test_a_misspelt_group_is_caught_with_the_right_name(group):
    for wrong in set(misspellings(group)) - set(CATALOGUE.groups):
        assert f"did you mean {CATALOGUE.spelling(group, 'x')}?" in refused(f"+{wrong}=x")
        assert f"did you mean {group}.a.b?" in refused(f"{wrong}.a.b=1")


@pytest.mark.parametrize("option", OPTIONS, ids=NAMES)
def test_a_misspelt_parameter_is_caught_with_the_right_name(option):
    chosen = CATALOGUE.spelling(option.group, option.name)
    place = f"{option.group}.{option.name}" if option.wrapped else option.group
    for name in option.parameters:
        assert f"did you mean {place}.{name}?" in refused(chosen, f"{place}.{name}x=1") or f"{name}x" in option.parameters


@pytest.mark.parametrize("option", OPTIONS, ids=NAMES)
def test_a_value_of_the_wrong_type_is_caught(option):
    chosen = CATALOGUE.spelling(option.group, option.name)
    place = f"{option.group}.{option.name}" if option.wrapped else option.group
    for name, default in option.parameters.items():
        wrong = "[[a]]" if isinstance(default, str) else "null" if isinstance(default, bool) else "abc"
        if default is not None and not isinstance(default, dict):
            assert refused(chosen, f"{place}.{name}={wrong}").startswith(f"{place}.{name} must be ")


@pytest.mark.parametrize("key", CATALOGUE.keys)
def test_a_misspelt_key_is_caught_with_the_right_name(key):
    assert f"did you mean {key}=1?" in refused(f"{key}x=1")


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("regularizer=dropout", "write +regularizer=dropout, with a plus"),
        ("+optimizer=adam", "write optimizer=adam, without the plus"),
        ("+seed=1", "write seed=1, without the plus"),
        ("+optimizer.lr=1", "write optimizer.lr=1, without the plus"),
        ("regularizer.dropout.p=0.3", "add +regularizer=dropout"),
        ("+regularizer.dropout.p=0.3", "add +regularizer=dropout"),
        ("+regularizer=l2 regularizer.dropout.p=0.3", "add +regularizer=dropout"),
        ("logger.csv.a=1", "add logger=[wandb,csv]"),
        ("clipping.max_norm=1", "add +clipping=norm"),
        ("+regularizr=dropout", "did you mean +regularizer=dropout?"),
        ("+regularizer=crop", "did you mean +augmentation=crop?"),
        ("dropout", "did you mean +regularizer=dropout?"),
        ("lr=0.1", "did you mean optimizer.lr=0.1?"),
        ("+regularizer=dropout regularizer.p=0.3", "did you mean regularizer.dropout.p?"),
        (
            "regularizer=null",
            "write +regularizer=none for none, or choose one of activation_l1, class_weights, confidence_penalty",
        ),
        ("logger=null", "write logger=none for none, or choose one of csv"),
        ("optimizer=null", "choose one of"),
        ("optimizer=[adam,sgd]", "write optimizer=adam"),
        ("optimizer={lr:1}", "write optimizer.PARAMETER=VALUE"),
        ("logger=[csv] +logger=tensorboard", "write logger=[csv,tensorboard]"),
        ("+logger=wandb", "leave one out"),
        ("+regularizer=[l2,l2]", "leave one out"),
        ("~optimizer", "choose another option"),
        ("~regularizer", "write regularizer=[]"),
        ("~optimizer.lr", "give it another value"),
        ("regularizer@x=dropout", "leave out @x"),
        ("optimizer._target_=os.system", "choose another option"),
        ("seed=0,1", "add -m"),
        ("+regularizer=dropout,l2", "write +regularizer=[dropout,l2]"),
        ("a=[", "expected KEY=VALUE, with text in quotes"),
        ("optimizer.lr=${nothing}", "optimizer.lr: Interpolation key 'nothing' not found"),
        ("optimizer.lr=${name}", "optimizer.lr must be a number, got null"),
        ("regularizer.dropout.p.x=1", "add +regularizer=dropout"),
        ("seed.x=1", "write seed=VALUE"),
        ("hydra.nothing=1", "hydra.nothing"),
        ("hydra/launcher=nothing", "add -m, or leave it out"),
    ],
)
def test_what_hydra_takes_silently_or_tells_badly(words, fix):
    assert fix in refused(*words.split())


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("optimizer=sgd,adm", "did you mean optimizer=adam?"),
        ("optimizer.lr=0.1,abc", "optimizer.lr must be a number, got 'abc'"),
        ("optimizer=adam,sgd optimizer.momentum=0.9", "optimizer has no parameter momentum of"),
        ("seed=range(0,3) max_steps=choice(1,a)", "max_steps must be a whole number"),
        ("optimizer=glob(nothing*)", "matches nothing"),
        ("+regularizer=dropout,l2 +regularizer=label_smoothing", "write +regularizer once"),
        ("model.hidden=[8],[a]", "model.hidden must be a list of whole numbers"),
        ("optimizer.lr=interval(a,1)", "interval"),
    ],
)
def test_every_value_of_a_sweep_is_checked(words, fix):
    assert fix in refused(*words.split(), multirun=True)


def test_sweeps_that_are_right():
    for word in ("optimizer=sgd,adam", "+regularizer=dropout,[dropout,l2],[]", "seed=range(3)"):
        assert check(CATALOGUE, [word, "name=job-${hydra:job.num}"], multirun=True)[0] == word
    assert check(CATALOGUE, ["optimizer=glob(ada*)"], multirun=True) == ["optimizer=adadelta,adafactor,adagrad,adam,adamw,adan"]
    assert check(CATALOGUE, ["optimizer.lr=interval(0.1,1)", "optimizer=sgd", "hydra/sweeper=optuna"], multirun=True)


@pytest.mark.parametrize("name", CATALOGUE.groups["recipe"])
def test_our_recipes_are_right_and_give_way(name):
    check(CATALOGUE, [f"recipe={name}"])
    check(CATALOGUE, [f"recipe={name}", "+regularizer=l2"])
    assert composed(f"recipe={name}", "optimizer=adagrad")["optimizer"] == CATALOGUE.groups["optimizer"]["adagrad"].node


def test_a_recipe_and_what_is_added_to_it(recipes):
    catalogue = recipes(both=BOTH)
    alone = composed("recipe=both", catalogue=catalogue)
    assert alone["optimizer"]["lr"] == 0.5 and alone["regularizer"]["dropout"]["p"] == 0.2
    added = composed("recipe=both", "+regularizer=l2", "regularizer.dropout.p=0.1", catalogue=catalogue)["regularizer"]
    assert list(added) == ["dropout", "l2"] and added["dropout"]["p"] == 0.1


@pytest.mark.parametrize("words", [["regularizer=[l2]"], ["regularizer=l2"], ["regularizer=[]"]])
def test_an_option_that_the_command_line_replaces_takes_its_values_along(recipes, words):
    catalogue = recipes(both=BOTH)
    assert "dropout" not in composed("recipe=both", *words, catalogue=catalogue)["regularizer"]


def test_a_recipes_values_stay_with_its_option(recipes):
    catalogue = recipes(both=BOTH)
    adam = composed("recipe=both", "optimizer=adam", "optimizer.eps=0.1", catalogue=catalogue)["optimizer"]
    assert adam == {**CATALOGUE.groups["optimizer"]["adam"].node, "eps": 0.1}
    same = composed("recipe=both", "optimizer=momentum", "optimizer.lr=0.4", catalogue=catalogue)["optimizer"]
    assert same["lr"] == 0.4 and same["momentum"] == 0.8


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("+regularizer=dropout", "leave one out"),
        ("+regularizer=[l2,dropout]", "leave one out"),
        ("regularizer=[l2] +regularizer=label_smoothing", "write regularizer=[l2,label_smoothing]"),
        ("regularizer=[l2] regularizer.dropout.p=0.3", "regularizer.dropout is not chosen"),
        ("+optimizer=adam", "without the plus"),
        ("optimizer.eps=1", "optimizer has no parameter eps of momentum"),
    ],
)
def test_mistakes_beside_a_recipe(recipes, words, fix):
    assert fix in refused("recipe=both", *words.split(), catalogue=recipes(both=BOTH))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("regularizer: {dropout: {p: 0.2}}", "regularizer.dropout has values, but is not chosen"),
        ("optimizer: {momentum: 0.9}", "optimizer has no parameter momentum of sgd"),
        ("optimizer: {lr: fast}", "optimizer.lr must be a number, got 'fast'"),
        ("optimzer: {lr: 1}", "there is no key optimzer"),
        ("max_epochs: 1.5", "max_epochs must be a whole number"),
        ("defaults: [/regularizer: [nothing]]", "regularizer/nothing"),
        ("defaults: [override /optimizer: adam, /regularizer: [l2]]", "`override` comes after"),
        ("optimizer: {_target_: os.system}", "optimizer._target_ must be torch.optim.SGD"),
        ("optimizer: [", "cannot be read"),
    ],
)
def test_a_recipe_with_a_mistake(recipes, text, message):
    assert message in refused("recipe=wrong", catalogue=recipes(wrong=text))


def test_a_recipe_on_top_of_a_recipe(recipes):
    catalogue = recipes(both=BOTH, more="defaults: [both]\nmax_epochs: 3")
    plain = composed("recipe=more", "optimizer=adam", catalogue=catalogue)
    assert plain["max_epochs"] == 3 and plain["regularizer"]["dropout"]["p"] == 0.2 and "momentum" not in plain["optimizer"]
    assert "leave one out" in refused("recipe=more", "+regularizer=dropout", catalogue=catalogue)


def test_a_flat_file_among_wrapped_ones_is_refused(tmp_path):
    (tmp_path / "regularizer").mkdir()
    (tmp_path / "regularizer" / "flat.yaml").write_text("# Flat.\n_target_: x.X\np: 1\n")
    assert "below a key flat" in refused("+regularizer=flat", catalogue=Catalogue([("test", tmp_path)]))


# Runs that are there already

PLAIN = composed("+regularizer=dropout", "logger=csv")


@pytest.fixture
def run(tmp_path):
    """Writes a run folder; values are changed by dotted names."""

    def write(text=None, **changes):
        plain = deepcopy(PLAIN)
        for name, value in changes.items():
            *path, last = name.split("__")
            node = plain
            for part in path:
                node = node[part]
            node[last] = value
        (tmp_path / "config.yaml").write_text(text or "# python train.py\n" + yaml.safe_dump(plain))
        (tmp_path / "result.json").write_text("{}")
        return tmp_path

    return write


def test_a_run_is_read_as_it_was(run):
    assert read_run(CATALOGUE, run()) == PLAIN


@pytest.mark.parametrize("key", CATALOGUE.keys)
def test_a_run_that_is_older_than_a_key_has_its_default(run, key):
    folder = run()
    older = {name: value for name, value in PLAIN.items() if name != key}
    (folder / "config.yaml").write_text(yaml.safe_dump(older))
    assert read_run(CATALOGUE, folder) == {**older, key: CATALOGUE.keys[key]}
    read_run(CATALOGUE, folder)["tags"].append("changed")
    assert CATALOGUE.keys["tags"] == []


def test_a_run_that_is_older_than_a_setting_of_the_trainer_has_its_default(run):
    folder = run()
    settings = dict(PLAIN["trainer"])
    left_out = settings.pop("sync_batchnorm")
    (folder / "config.yaml").write_text(yaml.safe_dump({**PLAIN, "trainer": settings}))
    assert read_run(CATALOGUE, folder)["trainer"] == {**settings, "sync_batchnorm": left_out}


@pytest.mark.parametrize("group", [group for group in CATALOGUE.defaults if group != "recipe"])
def test_a_run_without_a_group_is_refused(run, group):
    folder = run()
    (folder / "config.yaml").write_text(yaml.safe_dump({name: value for name, value in PLAIN.items() if name != group}))
    with pytest.raises(RecipeError, match=f"has no {group}$"):
        read_run(CATALOGUE, folder)
    if not CATALOGUE.many(group):  # of which there may be none
        with pytest.raises(RecipeError, match=f"has no {group}$"):
            read_run(CATALOGUE, run(**{group: {}}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"notes": "${oc.env:HOME}"}, "only plain values are allowed"),
        ({"tags": ["${oc.env:HOME}"]}, "only plain values are allowed"),
        ({"optimizer": {"_target_": "os.system", "command": "true"}}, "which no option of optimizer names"),
        ({"optimizer": {"_target_": "torch.optim.SGD", "lr": {"_target_": "os.getcwd"}}}, "optimizer.lr must be a number"),
        ({"regularizer__dropout__sites": {"_target_": "os.getcwd"}}, "regularizer.dropout.sites._target_ is not allowed"),
        ({"regularizer__dropout__sites": [{"_target_": "os.getcwd"}]}, "sites._target_ is not allowed"),
        ({"regularizer__dropout___target_": "os.getcwd"}, "regularizer.dropout._target_ must be"),
        ({"regularizer__evil": {"_target_": "os.getcwd"}}, "regularizer has no option evil"),
        ({"logger": [1]}, "logger must be a mapping"),
        ({"seed": "a"}, "seed must be a whole number"),
        ({"evil": 1}, "there is no key evil"),
    ],
)
def test_a_run_folder_is_not_trusted(run, changes, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        read_run(CATALOGUE, run(**changes))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [1]\nb: *a\n", "no aliases"),
        ("a: [1\n", "cannot be read"),
        ("- 1\n", "not a list"),
        ("seed: 1\n", "has no data, model, loss"),
        ("a: !!python/object/apply:os.getcwd []\n", "cannot be read"),
        ("# " + "x" * untrusted.LARGEST, "larger than"),
    ],
)
def test_a_broken_config_of_a_run(run, text, message):
    with pytest.raises(RecipeError, match=message):
        read_run(CATALOGUE, run(text))


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(RecipeError, match=r"looked for config.yaml and checkpoints/last.ckpt or result.json, but the folder"):
        read_run(CATALOGUE, tmp_path)
    (tmp_path / "config.yaml").write_text("seed: 1")
    with pytest.raises(RecipeError, match="the folder has no such files"):
        read_run(CATALOGUE, tmp_path)
    with pytest.raises(RecipeError, match="there is no such folder"):
        read_run(CATALOGUE, tmp_path / "nothing")


def test_what_can_be_changed(run):
    plain = read_run(CATALOGUE, run())
    words = ["max_epochs=7", "tags=[a]", "trainer.accelerator=cpu", "logger=[csv,wandb]", "logger.wandb.project=x"]
    resumed = change(CATALOGUE, plain, words, ON_RESUME, "resume")
    assert resumed["max_epochs"] == 7 and resumed["logger"]["wandb"]["project"] == "x"
    assert change(CATALOGUE, plain, ["+logger=wandb"], ON_RESUME, "resume")["logger"].keys() == {"csv", "wandb"}
    assert plain["max_epochs"] == 20 and list(plain["logger"]) == ["csv"]
    evaluated = change(CATALOGUE, plain, ["data.root=x", "data=mnist"], ON_EVALUATION, "evaluation")
    assert evaluated["data"] == {**CATALOGUE.groups["data"]["mnist"].node, "root": "x"}
    assert "metric" not in plain  # a run's config has no groups of which nothing is chosen
    assert change(CATALOGUE, plain, ["+metric=f1"], ON_EVALUATION, "evaluation")["metric"].keys() == {"f1"}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("seed=1", "cannot be changed on resume; what can: max_epochs"),
        ("optimizer.lr=1", "cannot be changed on resume"),
        ("+regularizer=l2", "cannot be changed on resume"),
        ("hydra.run.dir=x", "cannot be changed on resume"),
        ("trainer.devces=1", "did you mean trainer.devices?"),
        ("max_epochs=a", "max_epochs must be a whole number"),
        ("max_epochs=1,2", "is a sweep"),
        ("logger.wandb.project=x", "logger.wandb is not chosen"),
        ("notes=${oc.env:HOME}", "only plain values"),
        ("trainer._target_=os.system", "choose another option"),
        ("max_epoch=1", "did you mean max_epochs=1?"),
    ],
)
def test_what_cannot_be_changed(run, word, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        change(CATALOGUE, read_run(CATALOGUE, run()), [word], ON_RESUME, "resume")
