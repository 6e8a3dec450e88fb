"""The command, as it is installed: what it prints, where, and with which exit code."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fastcheck.cli import command as cli
from fastcheck.cli import warm_up
from fastcheck.cli.command import run
from fastcheck.diagnosis.inject import PLANTS
from fastcheck.importers.npz import read_problem, write_problem
from fastcheck.kernels import disk_cache
from fastcheck.reference.example import Example, make_problem
from fastcheck.report import Report
from fastcheck.settings import BACKENDS, METHODS, Settings

INSTALLED = shutil.which("fastcheck", path=str(Path(sys.executable).parent))
COMMAND = [INSTALLED] if INSTALLED else [sys.executable, "-m", "fastcheck"]
SMALL = ["--layers", "64-12-10", "--batch", "6"]

TARGET = """
from fastcheck import Network, Problem, backward_pass
import numpy as np

network = Network.from_arrays([np.ones((2, 3))], activations=["identity"], loss="squared_error")
problem = Problem(network, np.ones((4, 3)), np.zeros((4, 2)), backward_pass, name="mine")
number = 3

class Box:
    inside = problem

def make():
    return problem

def needs(what):
    return problem

def fails():
    raise ValueError("no data\\nhere")

def leaves():
    raise SystemExit(0)

def broken_gradient(network, inputs, targets):
    return [][1]

broken = Problem(network, np.ones((4, 3)), np.zeros((4, 2)), broken_gradient)
"""


def fastcheck(
    *arguments: str, folder: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
        timeout=300,
    )


def says(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command in this process."""
    code = run(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def options() -> list[str]:
    """Return every option's name, from the command itself."""
    source = inspect.getsource(sys.modules["fastcheck.cli.options"])
    return sorted(set(re.findall(r'"(--[a-z0-9-]+)"', source)))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(TARGET)
    return file


# ---- the installed command ---------------------------------------------------------------------


@pytest.mark.cli
def test_a_right_gradient_passes_with_exit_code_0() -> None:
    result = fastcheck("--sample", "300")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("✓ RIGHT")
    assert "64-1024-1024-10" in result.stdout
    assert "300 of 1,126,410" in result.stdout
    assert "\x1b" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.cli
def test_a_wrong_gradient_fails_with_exit_code_1() -> None:
    result = fastcheck(*SMALL, "--plant", "doubled@2")
    assert result.returncode == 1, result.stderr
    assert result.stdout.startswith("✗ WRONG")
    assert re.search(r"^✗\s+dW2", result.stdout, re.MULTILINE)
    assert re.search(r"^✓\s+dW1", result.stdout, re.MULTILINE)
    assert "Traceback" not in result.stderr


@pytest.mark.cli
def test_bad_usage_is_one_line_and_exit_code_2() -> None:
    result = fastcheck("--epsilom", "1")
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("fastcheck: No such option")
    assert "--epsilon" in result.stderr


@pytest.mark.cli
def test_the_module_is_the_command(target: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "fastcheck", f"{target}:problem", "--quiet"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("RIGHT: ")
    assert len(result.stdout.splitlines()) == 1


@pytest.mark.cli
def test_a_module_in_the_working_folder_is_found(target: Path) -> None:
    result = fastcheck("mine:make", "--quiet", folder=target.parent)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.cli
def test_help_is_quick_and_needs_no_numpy() -> None:
    code = (
        "import sys; from fastcheck.cli.command import run; code = run(['--help']);"
        "print(code, sorted({'numpy', 'numba', 'scipy', 'joblib'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "0 []"
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert fastcheck("--help").returncode == 0
        seconds.append(time.perf_counter() - start)
    # Under half a second when nothing else runs; tests run side by side.
    assert min(seconds) < 1.0


@pytest.mark.cli
def test_a_terminal_without_unicode_gets_question_marks() -> None:
    result = fastcheck(*SMALL, PYTHONIOENCODING="cp1252", PYTHONUTF8="0")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("? RIGHT")


@pytest.mark.cli
def test_a_fresh_installation_says_that_it_compiles(tmp_path: Path) -> None:
    """The notice comes before anything is compiled; a bad target then stops the run."""
    fresh = fastcheck("nothing.npz", XDG_CACHE_HOME=str(tmp_path), HOME=str(tmp_path))
    lines = fresh.stderr.splitlines()
    assert fresh.returncode == 2
    assert len(lines) == 2
    assert "compiling its kernels, once" in lines[0]
    assert "no file nothing.npz" in lines[1]
    quiet = fastcheck("nothing.npz", "--quiet", XDG_CACHE_HOME=str(tmp_path), HOME=str(tmp_path))
    assert len(quiet.stderr.splitlines()) == 1


def test_a_terminal_is_shown_what_is_compiled_and_left_clean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = list(disk_cache.listeners)
    for terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        with warm_up.announce_compiling():
            for tell in disk_cache.listeners:
                tell("_loss_value_huber")
        shown = capsys.readouterr().err
        assert ("compiling loss value huber (0 s so far)" in shown) == terminal
        assert shown.rpartition("\r")[2].strip() == ""
    assert disk_cache.listeners == before


@pytest.mark.cli
def test_a_closed_pipe_is_no_error() -> None:
    with subprocess.Popen(
        [*COMMAND, *SMALL], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


# ---- help, version, lists ----------------------------------------------------------------------


def test_help_names_every_option_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = says(capsys, "--help")
    assert code == 0
    assert len(options()) >= 25
    compare = says(capsys, "compare", "--help")
    assert compare[0] == 0
    out += compare[1]
    for option in [*options(), "TARGET", "--help"]:
        assert option in out, option
    for word in (*METHODS, *BACKENDS, "0 the gradient is right", "3 cannot tell"):
        assert word in " ".join(out.replace("│", " ").split()), word


def test_the_help_states_the_defaults_that_hold(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = says(capsys, "--help")
    text = " ".join(out.replace("│", " ").split())
    settings, example = Settings(), Example()
    assert (settings.epsilon, settings.tol, settings.seed, settings.method) == (
        1e-7,
        1e-7,
        0,
        "auto",
    )
    assert f"difference (default {settings.epsilon:.0e}".replace("e-0", "e-") in text
    assert "-".join(map(str, example.layers)) in text
    assert f"λ (default {example.l2})" in text
    assert f"Samples (default {example.batch})" in text
    assert f"hidden layers (default {example.activation})" in text
    assert f"Default {example.loss}." in text


def test_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    from fastcheck.versions import package_version

    assert says(capsys, "--version") == (0, f"fastcheck {package_version('fastcheck')}\n", "")


def test_list_plants_names_every_bug(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = says(capsys, "--list-plants")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(PLANTS)


# ---- options -----------------------------------------------------------------------------------


def test_json_comes_back_as_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.json"
    code, out, _ = says(capsys, *SMALL, "--plant", "zero", "--json", str(file))
    assert code == 1
    report = Report.from_json(file.read_text(encoding="utf-8"))
    assert report.status == "wrong"
    assert report.to_text() == out
    assert "planted bug: dW is zero" in report.name
    assert os.listdir(tmp_path) == ["report.json"]


def test_json_on_stdout_is_nothing_but_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = says(capsys, *SMALL, "--json", "-")
    assert code == 0
    assert json.loads(out)["passed"] is True


def test_options_reach_the_check(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (
        "--sample 40 --seed 5 --epsilon 1e-6 --method textbook --tol 1e-4 --precision float32 "
        "--jobs 1 --backend threads --activation tanh --loss squared_error --l2 0.5 --json -"
    )
    code, out, _ = says(capsys, *SMALL, *arguments.split())
    report = Report.from_json(out)
    assert code == 0
    method, held, network = report.method, report.held_to, report.network
    assert (method.checked, method.seed, method.epsilon, method.name) == (40, 5, 1e-6, "textbook")
    assert (held.tol, held.precision, report.run.threads) == (1e-4, "float32", 1)
    assert network is not None
    assert (network.sizes, network.batch, network.loss, network.l2) == (
        (64, 12, 10),
        6,
        "squared_error",
        0.5,
    )
    assert network.activations[0] == "tanh"


def test_another_seed_is_another_sample(capsys: pytest.CaptureFixture[str]) -> None:
    def names(seed: str) -> list[str]:
        _, out, _ = says(capsys, *SMALL, "--sample", "30", "--seed", seed, "--json", "-")
        return [component["name"] for component in json.loads(out)["components"]]

    assert names("1") == names("1") != names("2")


def test_a_sample_larger_than_n_checks_all_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = says(capsys, *SMALL, "--sample", "5000")
    assert code == 0
    assert "A sample of 5,000 was asked for" in " ".join(out.split())
    assert "all 910 components" in out


def test_what_nobody_can_tell_has_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = says(capsys, *SMALL, "--method", "textbook", "--epsilon", "1e-12")
    assert (code, out[:13]) == (3, "? CANNOT TELL")


def test_train_steps_check_again_after_training(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (*SMALL, "--train-steps", "2", "--learning-rate", "0.05", "--json", "-")
    code, out, _ = says(capsys, *arguments)
    report = Report.from_json(out)
    assert code == 0
    assert len(report.after_training) == 1
    assert "2 gradient steps of learning rate 0.05" in report.training


def test_float32_is_held_to_its_rounding(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = says(capsys, *SMALL, "--dtype", "float32", "--json", "-")
    assert (code, json.loads(out)["held_to"]["precision"]) == (0, "float32")


def test_quiet_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = says(capsys, *SMALL, "--quiet", "--plant", "negated")
    assert (code, err) == (1, "")
    assert len(out.splitlines()) == 1
    assert out.startswith("WRONG: ")


def test_an_example_is_written_and_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "start.npz"
    code, out, _ = says(capsys, "--write-example", str(file))
    assert code == 0
    assert f"fastcheck {file}" in out
    assert set(np.load(file)) == {
        "W1", "b1", "W2", "b2", "X", "Y", "dW1", "db1", "dW2", "db2", "spec",
    }  # fmt: skip
    assert file.stat().st_size < 100_000
    assert says(capsys, str(file))[0] == 0


def test_a_written_example_may_hold_a_bug(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wrong.npz"
    assert says(capsys, *SMALL, "--plant", "sign", "--write-example", str(file))[0] == 0
    assert read_problem(file).network.sizes == [64, 12, 10]
    assert says(capsys, str(file))[0] == 1


def test_a_journal_is_gone_on_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = tmp_path / "work.journal"
    arguments = (*SMALL, "--method", "textbook", "--journal", str(journal), "--json", "-")
    first = says(capsys, *arguments)
    again = says(capsys, *arguments)
    assert first[0] == again[0] == 0
    same = [json.loads(out)["whole"]["difference"] for _, out, _ in (first, again)]
    assert same[0] == same[1]


# ---- targets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("attribute", ["problem", "make", "Box.inside"])
def test_a_python_file_gives_the_problem(
    target: Path, attribute: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = says(capsys, f"{target}:{attribute}")
    assert code == 0
    assert "mine" in out


def test_a_module_gives_the_problem(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = says(
        capsys, "fastcheck.reference.example:make_problem", "--sample", "50", "--json", "-"
    )
    assert code == 0
    assert json.loads(out)["method"]["size"] == 1_126_410


BAD_USAGE = {
    "--epsilon 0": "epsilon=0.0. Expected a number above 0",
    "--epsilon -1": "epsilon=-1.0. Expected a number above 0",
    "--epsilon nan": "epsilon=nan. Expected a number above 0",
    "--epsilon abc": "Invalid value for '--epsilon': 'abc'. Expected a number",
    "--epsilon 1e-30 --method textbook": "1e-30",
    "--sample 0": "sample=0. Expected a whole number, 1 or more",
    "--sample 2.5": "Invalid value for '--sample': '2.5'. Expected a whole number",
    "--seed -1": "seed=-1. Expected a whole number, 0 or more",
    "--tol 0": "tol=0.0. Expected a number above 0",
    "--jobs 0": "jobs=0. Expected a whole number",
    "--method unti": "unknown method 'unti'. Expected a method. Did you mean 'unit'?",
    "--backend thread": "unknown backend 'thread'. Expected a backend. Did you mean 'threads'",
    "--precision float23": "precision='float23'",
    "--train-steps -1": "train_steps=-1",
    "--train-steps 1 --learning-rate 0": "learning_rate=0.0",
    "--layers 64": "layers 64. Expected at least two sizes",
    "--layers 64x10": "--layers '64x10'. Expected sizes with hyphens",
    "--layers 64--10": "--layers '64--10'",
    "--activation rleu": "unknown activation 'rleu'",
    "--loss mena_squared_error": "unknown loss 'mena_squared_error'",
    "--l2 -1": "l2=-1.0",
    "--batch 0": "batch=0",
    "--dtype float23": "dtype='float23'",
    "--plant transpose": "unknown bug 'transpose'",
    "--plant doubled@9": "layer '9' in doubled@9. Expected a layer from 1 to",
    "--plant mask_forgotten": "mask_forgotten changes nothing in this network",
    "--json /nowhere/report.json": "--json /nowhere/report.json. Expected a file in a folder",
    "--write-example example.txt": "Write example.txt.npz",
    "a.npz b.npz": "unexpected extra argument",
    "a.npz --layers 64-10": "both TARGET 'a.npz' and --layers",
    "a.npz --plant sign": "both TARGET 'a.npz' and --plant",
    "a.npz --gradient g.npz": "--gradient g.npz with TARGET 'a.npz'. Expected a TARGET whose grad",
    "a.py:problem --gradient g.npz": "--gradient g.npz with TARGET 'a.py:problem'",
    "--gradient g.npz": "--gradient g.npz without TARGET. Expected a TARGET whose gradient",
    "a.npz": "no file a.npz. Expected a .npz file",
    "a.py": "a.py without an attribute. Expected a.py:attribute",
    "a.py:problem": "no file a.py",
    "no_such_module:problem": "no module 'no_such_module'",
    "whatever": "TARGET 'whatever'. Expected a problem.npz (.safetensors, .onnx), module:attribute",
    "json:nothing": "json:nothing: there is no 'nothing'",
    "json:tool.main": "json:tool.main",
}


@pytest.mark.parametrize("arguments", BAD_USAGE)
def test_bad_usage_is_refused_in_one_line(
    arguments: str, capsys: pytest.CaptureFixture[str]
) -> None:
    example = SMALL if arguments.startswith("--") and "--layers" not in arguments else []
    code, out, err = says(capsys, "--quiet", *example, *arguments.split())
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("fastcheck: ")
    assert BAD_USAGE[arguments] in err


BAD_TARGETS = {
    "number": "gives int. Expected a fastcheck.Problem. Return fastcheck.Problem(",
    "problme": "there is no 'problme'. Expected a Problem or a function that returns one. Did you "
    "mean 'problem'",
    "needs": "needs what. Expected",
    "fails": "failed: ValueError: no data here (mine.py, line 19)",
    "leaves": "failed: SystemExit: 0 (mine.py, line 22)",
    "broken": "IndexError: list index out of range (mine.py, line 25)",
}


@pytest.mark.parametrize("attribute", BAD_TARGETS)
def test_a_bad_python_target_is_refused_in_one_line(
    target: Path, attribute: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = says(capsys, "--quiet", f"{target}:{attribute}")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert BAD_TARGETS[attribute] in err


def test_a_target_with_a_slip_of_the_pen_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text("x = (1\n")
    code, _, err = says(capsys, "--quiet", f"{file}:x")
    assert code == 2
    assert "SyntaxError: '(' was never closed (mine.py, line 1)" in err


def test_an_existing_file_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.npz"
    file.write_text("precious")
    code, _, err = says(capsys, "--quiet", "--write-example", str(file))
    assert code == 2
    assert "which exists. Expected a new file" in err
    assert file.read_text() == "precious"


def test_arrays_cannot_be_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_problem(tmp_path / "p.npz", make_problem(Example(layers=(9, 4, 3), batch=3)))
    code, _, err = says(capsys, "--quiet", str(tmp_path / "p.npz"), "--train-steps", "1")
    assert code == 2
    assert "Expected a function gradients(network, inputs, targets)" in err


def test_a_traceback_comes_only_when_asked_for(
    target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASTCHECK_TRACEBACK", "1")
    code, _, err = says(capsys, "--quiet", f"{target}:broken")
    assert code == 2
    assert err.startswith("Traceback")
    assert "IndexError" in err


ENDINGS: list[BaseException] = [
    MemoryError("unable to allocate 8.6 GiB"),
    RecursionError("maximum recursion depth exceeded"),
    ImportError("libcblas.so.3: cannot open shared object file"),
    SystemExit(1),
    SystemExit("the user's own words"),
    SystemExit(0),
    OSError(28, "No space left on device"),
    AssertionError(),
    GeneratorExit(),
]


@pytest.mark.parametrize("traceback", ["", "1"])
@pytest.mark.parametrize("ending", ENDINGS, ids=repr)
@pytest.mark.parametrize("place", ["_command", "_problem", "_report", "announce_compiling"])
def test_whatever_else_goes_wrong_is_no_wrong_gradient_and_no_right_one(
    place: str,
    ending: BaseException,
    traceback: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ends(*_: object) -> None:
        raise ending

    monkeypatch.setattr(cli, place, ends)
    monkeypatch.setenv("FASTCHECK_TRACEBACK", traceback)
    code, out, err = says(capsys, *SMALL)
    assert (code, out) == (2, "")
    assert type(ending).__name__ in err
    if not traceback:
        assert err.startswith("fastcheck: ")


def test_output_is_written_through_what_is_no_regular_file(tmp_path: Path) -> None:
    fifo, link, real = tmp_path / "fifo", tmp_path / "link", tmp_path / "real.json"
    os.mkfifo(fifo)
    real.write_text("old")
    link.symlink_to(real)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    cli._write(fifo, "report")
    assert os.read(reader, 100) == b"report"
    os.close(reader)
    assert fifo.is_fifo()
    cli._write(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert sorted(f.name for f in tmp_path.iterdir()) == ["fifo", "link", "real.json"]


def test_a_reader_who_goes_away_does_not_make_a_wrong_gradient_right() -> None:
    command = [sys.executable, "-m", "fastcheck", *SMALL, "--plant", "penalty_sign", "--quiet"]
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run(command, check=False, stdout=writer, stderr=subprocess.DEVNULL)
    os.close(writer)
    assert ran.returncode == 1


def test_a_module_that_is_missing_is_no_wrong_gradient(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise ImportError('half an installation')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parent.parent}"}
    command = [sys.executable, "-m", "fastcheck", "--version"]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert ran.returncode == 2
    assert ran.stderr == ("fastcheck: it can't be loaded (ImportError: half an installation)\n")


def test_an_interruption_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_problem", interrupted)
    assert says(capsys, "--quiet") == (130, "", "fastcheck: interrupted\n")


def test_a_failed_self_check_cannot_tell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fastcheck.methods.unit.self_check import SelfCheckError

    def broken(*_: object) -> None:
        raise SelfCheckError("the two methods disagree")

    monkeypatch.setattr(cli, "_report", broken)
    code, _, err = says(capsys, "--quiet", *SMALL)
    assert code == 3
    assert err.startswith("fastcheck: SelfCheckError: the two methods disagree")
    assert len(err.splitlines()) == 1


ODD_SURROUNDINGS = {
    "no threads for numba": ({"NUMBA_NUM_THREADS": "0"}, "", 2, "NUMBA_NUM_THREADS=0"),
    "numba without its compiler": ({"NUMBA_DISABLE_JIT": "1"}, "", 2, "NUMBA_DISABLE_JIT is set"),
    "no standard output": ({}, ">&-", 0, ""),
    "a full disk": ({}, ">/dev/full", 2, "standard output can't be written (No space left"),
    "an old encoding": ({"PYTHONIOENCODING": "ascii"}, ">/dev/null", 0, ""),
    "no home": ({"HOME": ""}, ">/dev/null", 0, ""),
    "warnings that are errors": ({"PYTHONWARNINGS": "error"}, ">/dev/null", 0, ""),
    "threads that are no number": ({"OMP_NUM_THREADS": "x"}, ">/dev/null", 0, ""),
}


@pytest.mark.cli
@pytest.mark.parametrize("case", ODD_SURROUNDINGS)
def test_odd_surroundings_end_in_a_line_and_the_right_code(case: str) -> None:
    variables, redirection, code, words = ODD_SURROUNDINGS[case]
    command = f"exec {sys.executable} -m fastcheck {' '.join(SMALL)} {redirection}"
    environment = os.environ | variables
    ran = subprocess.run(
        ["sh", "-c", command], check=False, capture_output=True, text=True, env=environment
    )
    assert ran.returncode == code, ran.stderr
    assert "Traceback" not in ran.stderr
    assert words in ran.stderr
    lines = [line for line in ran.stderr.splitlines() if "compiling" not in line]
    assert len(lines) == (code != 0)
