# SPDX-License-Identifier: BSD-2-Clause
"""The process that renders chat templates: its limits, its beginning and its end."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from litellama.host import template as template_module
from litellama.host.template import ChatTemplate

from test_template import CONTENT, T, render, spelt

SLOW = "{% for i in range(100000) %}{% for j in range(100000) %}{% for k in range(100000) %}{% endfor %}{% endfor %}{% endfor %}"


def worker():
    """The process, which runs after this."""
    render(CONTENT)
    return template_module._renderer._process


@pytest.mark.parametrize("source", [SLOW, "{{ lipsum(n=1000000) }}", "{{ 2**(10**9) }}"])
def test_what_takes_too_long_is_ended(source):
    """After two seconds of processor time, also where no Python code runs in which it could be noticed."""
    process = worker()
    with pytest.raises(ValueError, match=r"\Achat template of the model failed: it takes too long\Z"):
        render(CONTENT + source)
    assert process.returncode == -signal.SIGPROF
    assert spelt(render(CONTENT))[0] == "hi"


def limits(pid):
    """Soft limits of a process, by their first word or two."""
    with open(f"/proc/{pid}/limits", encoding="ascii") as f:
        return {line[:26].strip(): line[26:].split()[0] for line in f}


def test_it_is_given_little():
    got = limits(worker().pid)
    assert got["Max address space"] == str(512 << 20) and got["Max open files"] == got["Max processes"] == got["Max file size"] == "0"
    assert got["Max core file size"] == "0"


def test_one_process_serves_all_templates_and_is_replaced_when_it_ends():
    first = worker()
    assert worker() is first and spelt(render("a" + CONTENT))[0] == "ahi" and worker() is first
    first.kill()
    first.wait()
    assert spelt(render(CONTENT))[0] == "hi" and worker() is not first


def test_it_is_not_in_the_terminals_group():
    """Ctrl-C is for the chat."""
    assert os.getsid(worker().pid) == worker().pid != os.getsid(0)


def test_an_interrupted_request_is_not_answered_to_the_next():
    worker()
    template = ChatTemplate(CONTENT + SLOW, T)
    timer    = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        template.render([dict(role="user", content="hi")])
    assert spelt(render(CONTENT, "you"))[0] == "you"


def test_it_ends_when_no_answer_comes(monkeypatch):
    process = worker()
    os.kill(process.pid, signal.SIGSTOP)   # Uses no processor time, so its own limit does not count.
    with monkeypatch.context() as m, pytest.raises(ValueError, match="it takes too long"):
        m.setattr(template_module, "PATIENCE", 0.3)
        render(CONTENT)
    assert process.returncode == -signal.SIGKILL and spelt(render(CONTENT))[0] == "hi"


def test_threads_do_not_get_each_others_answers():
    said   = {}
    def ask(name):
        said[name] = [spelt(render(CONTENT + name, name*n))[0] for n in range(1, 9)]
    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcd"]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert said == {name: [name*n + name for n in range(1, 9)] for name in "abcd"}


CLIENT = """import time
from test_template import CONTENT, render
from litellama.host import template
render(CONTENT)
print(template._renderer._process.pid, flush=True)
time.sleep({0})
"""


@pytest.mark.parametrize("seconds, sent", [(0, None), (60, signal.SIGKILL), (60, signal.SIGINT), (60, signal.SIGTERM)])
def test_it_ends_with_its_parent(seconds, sent):
    parent = subprocess.Popen([sys.executable, "-c", CLIENT.format(seconds)], cwd=os.path.dirname(__file__), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    pid = int(parent.stdout.readline())
    if sent:
        parent.send_signal(sent)
    parent.wait()
    end = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}") or "Z" in open(f"/proc/{pid}/stat").read().split(")")[-1]


def test_it_does_not_import_from_where_the_user_stands(tmp_path, monkeypatch):
    (tmp_path/"jinja2.py").write_text("raise SystemExit(3)")
    (tmp_path/"json.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    template_module._renderer.close()
    assert spelt(render(CONTENT))[0] == "hi"
