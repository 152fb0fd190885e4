"""A signal is heard by all who run something in a process, and by nobody else's handler less."""

import signal
import subprocess
import sys

import pytest

from cloudops_prefect.control import RUNNERS_MARK

BEGINNING = """
import asyncio, os, signal, sys
from cloudops_prefect.control import RunControl, sigterm

def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)

async def told(listening):
    with listening as event:
        print("listening", flush=True)
        await asyncio.wait_for(event.wait(), 10)
        print("told", flush=True)
        # One that ends sooner than the other.
        event.clear()
        send()
        await asyncio.wait_for(event.wait(), 10)
        print("told again", flush=True)
"""
TWO_LISTEN = """
async def main():
    second = asyncio.create_task(told(sigterm.awaited()))
    with sigterm.awaited() as first:
        await asyncio.sleep(0)
        send()
        await first.wait()
    await second
    send()
    print("never")
asyncio.run(main())
"""
ANOTHER_HANDLER = """
async def main():
    with sigterm.awaited():
        signal.signal(signal.SIGTERM, lambda *_: print("the user's"))
    with sigterm.awaited() as event:
        send()
        assert not event.is_set()
asyncio.run(main())
"""
A_FORGOTTEN_LOOP = """
async def main():
    sigterm.awaited().__enter__()
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
loop.close()
send()
print("never")
"""
A_FORKED_CHILD = """
async def main():
    with sigterm.awaited() as event:
        if (pid := os.fork()) == 0:
            send()
            os._exit(0)
        print(os.WTERMSIG(os.waitpid(pid, 0)[1]))
        assert not event.is_set()
asyncio.run(main())
"""
A_RUN_AND_A_LISTENER = """
async def main():
    control = RunControl()
    with sigterm.awaited() as event:
        with sigterm.cancels(control):
            send()
            await event.wait()
            await control.until_cancelled()
    print(control.cancelled, flush=True)
asyncio.run(main())
"""
A_CLOSED_TERMINAL = """
async def main():
    control = RunControl()
    with sigterm.awaited() as event:
        with sigterm.cancels(control):
            send(signal.SIGHUP)
            await asyncio.wait_for(event.wait(), 10)
            await control.until_cancelled()
            print(event.number, flush=True)
asyncio.run(main())
send(signal.SIGHUP)
print("never")
"""
HANGUP_OF_SOMEBODY_ELSE = """
async def main():
    control = RunControl()
    with sigterm.awaited() as event, sigterm.cancels(control):
        assert signal.getsignal(signal.SIGHUP) is handler
        send(signal.SIGHUP)
        await asyncio.sleep(0)
        assert not event.is_set() and not control.cancelled
        send()
        await event.wait()
    assert signal.getsignal(signal.SIGHUP) is handler
    print("SIGTERM only", flush=True)
asyncio.run(main())
"""
NOHUP = "handler = signal.SIG_IGN; signal.signal(signal.SIGHUP, handler)"
OWN_HANDLER = "handler = lambda *_: print('own'); signal.signal(signal.SIGHUP, handler)"
CTRL_C = """
async def main():
    control, later = RunControl(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, later.set)
    with sigterm.cancels(control):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(later.wait(), 10)
    print("cancelled", control.cancelled, flush=True)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
MARKED = f"os.environ[{RUNNERS_MARK!r}] = 'a run'"
IN_THE_BACKGROUND = "signal.signal(signal.SIGINT, signal.SIG_IGN)"


@pytest.mark.parametrize(
    ("code", "printed", "returncode"),
    [
        (TWO_LISTEN, ["listening", "told", "told again"], -signal.SIGTERM),
        (ANOTHER_HANDLER, ["the user's"], 0),
        (A_FORGOTTEN_LOOP, [], -signal.SIGTERM),
        (A_FORKED_CHILD, [str(int(signal.SIGTERM))], 0),
        (A_RUN_AND_A_LISTENER, ["True"], 0),
        (A_CLOSED_TERMINAL, [str(int(signal.SIGHUP))], -signal.SIGHUP),
        (f"{NOHUP}{HANGUP_OF_SOMEBODY_ELSE}", ["SIGTERM only"], 0),
        (f"{OWN_HANDLER}{HANGUP_OF_SOMEBODY_ELSE}", ["own", "SIGTERM only"], 0),
        (f"{MARKED}{CTRL_C}", ["cancelled True"], 0),
        (f"{MARKED}\n{IN_THE_BACKGROUND}{CTRL_C}", ["cancelled False"], 0),
        (CTRL_C, ["interrupted"], 0),
    ],
    ids=[
        "two listen",
        "another handler",
        "forgotten loop",
        "forked child",
        "run and listener",
        "closed terminal",
        "nohup",
        "own handler of SIGHUP",
        "Ctrl-C for a run",
        "Ctrl-C that is ignored",
        "Ctrl-C for a caller",
    ],
)
def test_a_signal(code, printed, returncode):
    argv = [sys.executable, "-c", BEGINNING + code]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert (done.stdout.splitlines(), done.returncode) == (printed, returncode), done.stderr
