"""Runs `cargo test` as it is asked to, and says at the end how long that took and which files and tests took longest.

    python3 tests/timed.py cargo test --locked --workspace [filter] [-- flags of the test binaries]

Cargo builds and chooses what runs, as always; it is only told to start each test binary through this script, as a
"runner". That asks libtest for the time of each test, passes on what it prints as it comes, and exits or dies as the
binary did. The exit status is Cargo's.
"""

import collections
import json
import os
import pathlib
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time

LONG = 10.0  # seconds of a file's tests together, from which on it is named
SLOWEST = 5
NAMED = 12  # tests that had not ended, at most

COLOR = re.compile(r"\x1b(\[[0-9;]*m|\(B)")
BEGINS = re.compile(r"^running (\d+) tests?$")
# With one thread the name is printed when the test begins, and what follows it when it ends.
NAME = re.compile(r"^test (\S+)(?: - should panic)? \.\.\. ")
ENDS = re.compile(r"(ok|FAILED|ignored.*?)(?: <([0-9.]+)s>)?$")
RESULT = re.compile(r"^test result: ")


# ---- one test binary ----


class Output:
    """What libtest said so far."""

    def __init__(self):
        self.rest = b""
        self.begun = None
        self.name = None
        self.ended = {}
        self.has_result = False

    def take(self, data):
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.line(COLOR.sub("", line.decode(errors="replace")))

    def line(self, line):
        if self.has_result:
            return
        if self.begun is None:
            begins = BEGINS.match(line)
            self.begun = int(begins[1]) if begins else None
            return
        self.has_result = bool(RESULT.match(line))
        if name := NAME.match(line):
            self.name, line = name[1], line[name.end() :]
        if self.name and (ends := ENDS.match(line)):
            self.ended[self.name] = float(ends[2]) if ends[2] else None  # one that was ignored
            self.name = None


def passed_on(child, output):
    """Copies what the binary prints until it has ended. What it started may live on and keep the pipe open."""
    woken, wake = os.pipe()
    pipe = child.stdout.fileno()

    def copy():
        while True:
            ready, _, _ = select.select([pipe, woken], [], [])
            if pipe not in ready:
                return
            data = os.read(pipe, 1 << 16)
            if not data:
                return
            output.take(data)
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    thread = threading.Thread(target=copy)
    thread.start()
    child.wait()
    os.write(wake, b".")
    thread.join()


def threads_of(arguments):
    for at, argument in enumerate(arguments):
        if argument.startswith("--test-threads="):
            return int(argument.partition("=")[2])
        if argument == "--test-threads":
            return int(arguments[at + 1])
    return int(os.environ.get("RUST_TEST_THREADS") or os.cpu_count())


def not_ended(command, environment, ended):
    """The tests that would have run and had not ended, in libtest's order: it begins them in it."""
    if any(argument in ("-q", "--quiet") or argument.startswith("--format") for argument in command):
        return []  # nobody said what had ended
    listed = subprocess.run(
        [*command, "--list", "--format=terse"], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    names = [line[: -len(": test")] for line in listed.stdout.decode().splitlines() if line.endswith(": test")]
    return [name for name in names if name not in ended]


def run_binary(records, command):
    binary, *arguments = command
    # libtest tells times only where unstable options are allowed, which this variable does on a stable toolchain. It is set
    # for running alone: crates look for it when they are compiled, and would come out different.
    environment = {**os.environ, "RUSTC_BOOTSTRAP": "1"}
    asked = [flag for flag in ("-Zunstable-options", "--report-time") if flag not in arguments]
    if sys.stdout.isatty() and not any(argument.startswith("--color") for argument in arguments):
        asked.append("--color=always")

    record = pathlib.Path(records, f"{os.getpid()}.json")
    record.touch()
    output = Output()
    began = time.monotonic()
    child = subprocess.Popen([binary, *asked, *arguments], env=environment, stdout=subprocess.PIPE)
    handed_on(child)
    passed_on(child, output)

    status = child.returncode
    broke_off = output.begun is not None and not output.has_result
    write(
        record,
        binary=binary,
        sources=str(sources_of(binary)),
        began=began,
        begun=output.begun,
        ended=output.ended,
        status=status,
        not_ended=not_ended([binary, *arguments], environment, output.ended) if broke_off else None,
        running=threads_of(arguments),
    )
    if broke_off and status == 0:
        # A test that exits with 0 takes all others with it, and nobody would know.
        status = 101
    leave(status)


def write(path, **record):
    """At once: whoever reads it finds all of it, or nothing yet."""
    if not path.exists():
        return  # Cargo was killed, and who waited for it has reported and gone
    whole = path.with_suffix(".new")
    whole.write_text(json.dumps(record))
    whole.rename(path)


def sources_of(binary):
    """The file or folder that modules are looked for in. Cargo names the binary after the target, and a hash."""
    package = pathlib.Path(os.environ.get("CARGO_MANIFEST_DIR", "."))
    target = pathlib.Path(binary).name.rpartition("-")[0]
    for sources in (package / "tests" / target, package / "tests" / f"{target}.rs"):
        if sources.exists():
            return sources.absolute()
    return (package / "src").absolute()


# ---- all of them ----


def file_of(sources, test):
    """The file that a test is in, by its path of modules; the last that exists, since modules may be within a file."""
    sources = pathlib.Path(sources)
    modules = test.split("::")[:-1]
    while modules:
        module = sources.joinpath(*modules)
        for path in (module.with_suffix(".rs"), module / "mod.rs"):
            if path.exists():
                return os.path.relpath(path)
        modules.pop()
    main = [path for path in (sources / "main.rs", sources / "lib.rs") if path.exists()]
    return os.path.relpath(main[0] if main else sources)


def duration(seconds):
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def counted(number, what):
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def how_ended(status):
    if status >= 0:
        return f"exited with {status}"
    return f"was killed by {signal.Signals(-status).name}"


def report(began, runs):
    ended = [(seconds, name, run["sources"]) for run in runs for name, seconds in run["ended"].items()]
    tests = [(seconds, name, file_of(sources, name)) for seconds, name, sources in ended if seconds is not None]
    files = collections.defaultdict(list)
    for seconds, _, file in tests:
        files[file].append(seconds)
    long = sorted(((sum(times), len(times), file) for file, times in files.items()), reverse=True)
    long = [row for row in long if row[0] > LONG]

    first = min(run["began"] for run in runs)
    print(f"\nThe suite took {duration(time.monotonic() - first)}: ", end="")
    print(f"{counted(sum(run['begun'] for run in runs), 'test')}, after {duration(first - began)} of building.")
    if long:
        print(f"Files whose tests took more than {LONG:.0f} s, added up (they may run side by side):")
        for seconds, number, file in long:
            print(f"{seconds:9.1f} s  {counted(number, 'test'):>9}  {file}")
    elif tests:
        print(f"The tests of no file took more than {LONG:.0f} s, added up.")
    if tests:
        print("The slowest tests:")
        for seconds, name, _ in sorted(tests, reverse=True)[:SLOWEST]:
            print(f"{seconds:9.1f} s  {name}")
    for run in runs:
        left = run["not_ended"]
        if left is None:
            continue
        print(f"\n{os.path.relpath(run['binary'])} {how_ended(run['status'])} before its tests had ended.")
        if left:
            print(f"{counted(len(left), 'test')} had not ended; what ran is among the first of them:")
            for name in left[: min(run["running"], NAMED)]:
                print(f"    {name}")


def written(records, patience):
    """What was run, once each has written of it: Cargo ends before what it started where ctrl-C ends both."""
    give_up = time.monotonic() + patience
    while True:
        texts = [path.read_text() for path in records.glob("*.json")]
        if all(texts) or time.monotonic() > give_up:
            return [run for run in map(json.loads, filter(None, texts)) if run["begun"] is not None]
        time.sleep(0.05)


def run_all(command):
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as records:
        runner = json.dumps(["python3", os.path.abspath(__file__), "--binary", records])
        cargo, *arguments = command
        child = subprocess.Popen([cargo, "--config", f"target.'cfg(all())'.runner = {runner}", *arguments])
        handed_on(child)
        status = child.wait()
        runs = written(pathlib.Path(records), patience=5 if status < 0 else 0)
        if runs:
            report(began, runs)
    leave(status)


# ---- processes ----


def handed_on(child):
    """Ctrl-C reaches the child from the terminal, and what it leaves behind is still reported; the others are sent on."""
    # A handler, since a signal that is ignored would be ignored by everything that the tests start.
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: child.send_signal(number))


def leave(status):
    """Ends as the child did: Cargo and make then say the same as without this script between them."""
    sys.stdout.flush()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    # Whoever reads what is printed may stop reading.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if sys.argv[1:2] == ["--binary"]:
        run_binary(sys.argv[2], sys.argv[3:])
    else:
        run_all(sys.argv[1:])
