"""The port at which the ranks of one machine meet."""

import sys

from torch.distributed import TCPStore

from recipes.launch import watch

RANK = """
import os, socket
with socket.socket() as other:
    try:
        other.bind(("", int(os.environ["MASTER_PORT"])))
    except OSError:
        with open(os.environ["RANK"], "w") as file:
            file.write(os.environ["MASTER_PORT"])
"""


def test_no_other_program_gets_the_port_before_the_first_rank_listens(tmp_path, monkeypatch):
    (tmp_path / "rank.py").write_text(RANK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["rank.py"])
    watch.Watch(tmp_path).run(2, 1, {})
    first, second = ((tmp_path / str(number)).read_text() for number in (0, 1))
    assert first == second


def test_torch_listens_at_a_port_that_is_held():
    with watch.hold_port() as held:
        port = held.getsockname()[1]
        store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
        TCPStore("127.0.0.1", port, wait_for_workers=False).set("key", "value")
        assert store.get("key") == b"value"
