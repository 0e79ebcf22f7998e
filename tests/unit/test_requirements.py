"""Reading what a model was logged with: names and versions, and nothing else that such files can say."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement

from app.domain.environments import ALLOWED, CONVERTERS, FLAVORS, NEEDLESS, Wanted, additions, is_alike
from app.domain.errors import Rejected
from app.requirements import parse, read

PLAIN = re.compile(r"[a-z0-9][a-z0-9-]*(\[[a-z0-9,-]+\])?(((==|!=|<=|>=|~=|<|>)[0-9a-z.!*]+)(,(?!$)|$))*")
OWN = {"scikit-learn": "1.9.1", "numpy": "2.4.6", "cloudpickle": "3.1.2", "skops": "0.16.0"}


def model(folder: Path, requirements: str | None = None, flavors: Any = None, **files: Any) -> Path:
    """A model's folder as MLflow writes it; `files` are YAML by name."""
    flavors = {"sklearn": {"sklearn_version": "1.9.1"}} if flavors is None else flavors
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
    if requirements is not None:
        (folder / "requirements.txt").write_text(requirements)
    for name, document in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(document))
    return folder


def texts(folder: Path) -> list[str]:
    return [str(requirement) for requirement in read(folder, ALLOWED).requirements]


def test_what_mlflow_writes_is_read(tmp_path: Path) -> None:
    folder = model(
        tmp_path,
        "mlflow==3.17.2\ncloudpickle==3.1.2\nnumpy==2.4.6\npsutil==7.0\nrich==14.3\nScikit_Learn==1.9.1  # ours\n",
        python_env={"python": "3.10.4", "dependencies": ["-r requirements.txt"]},
        conda={"dependencies": ["python=3.10.4", "pip<=24", {"pip": ["evil==1"]}]},
    )

    logged = read(folder, ALLOWED)

    assert [str(r) for r in logged.requirements] == ["cloudpickle==3.1.2", "numpy==2.4.6", "scikit-learn==1.9.1"]
    assert (logged.flavor, logged.python, logged.source) == ("sklearn", "3.10.4", "requirements.txt")
    assert logged.left_out == ("mlflow==3.17.2", "psutil==7.0", "rich==14.3")


def test_without_requirements_the_other_files_say_it(tmp_path: Path) -> None:
    conda = {"dependencies": ["python=3.8.5", "scikit-learn=1.2", "pip", {"pip": ["joblib==1.3.0", "mlflow"]}]}
    folder = model(tmp_path, conda=conda)

    logged = read(folder, ALLOWED)

    # MLmodel names the version exactly, and conda the first two numbers of it: uv says whether that fits.
    assert [str(r) for r in logged.requirements] == ["joblib==1.3.0", "scikit-learn==1.2.*", "scikit-learn==1.9.1"]
    assert (logged.python, logged.source) == ("3.8.5", "conda.yaml")
    model(tmp_path, python_env={"python": "3.9", "dependencies": ["joblib==1.4.0"]})
    assert texts(tmp_path) == ["joblib==1.4.0", "scikit-learn==1.9.1"]


@pytest.mark.parametrize("requirements", ["", "scikit-learn\n", "scikit-learn>=1\n"])
def test_a_version_that_was_not_logged_is_that_of_mlmodel(tmp_path: Path, requirements: str) -> None:
    assert "scikit-learn==1.9.1" in texts(model(tmp_path, requirements))


def test_a_logged_version_wins_over_mlmodel(tmp_path: Path) -> None:
    assert texts(model(tmp_path, "scikit-learn==1.5.2+local7")) == ["scikit-learn==1.5.2"]


HOSTILE = [
    ("-r other.txt", "option '-r'"),
    ("--index-url https://user:hunter2@evil.example/simple", "option '--index-url'"),
    ("--index-url=https://user:hunter2@evil.example", "option '--index-url'"),
    ("--extra-index-url x", "option '--extra-index-url'"),
    ("--find-links /tmp", "option '--find-links'"),
    ("-e .", "option '-e'"),
    ("-c constraints.txt", "option '-c'"),
    ("--no-binary :all:", "option '--no-binary'"),
    ("numpy==1.0 --hash=sha256:00", "no plain name"),
    ("numpy==1.0 \\", "no plain name"),
    ("git+https://hunter2@evil.example/x.git", "no plain name"),
    ("numpy @ https://hunter2@evil.example/numpy.whl", "'numpy' from an address"),
    ("numpy @ file:///etc/passwd", "'numpy' from an address"),
    ("./numpy", "no plain name"),
    ("/tmp/numpy-1.whl", "no plain name"),
    ("numpy-2.0-py3-none-any.whl", "not allowed"),
    ("numpy==1.0; os_name == 'posix' or __import__('os')", "no plain name"),
    ("numpy===1.0", "==="),
    ("nump\u0443==1.0", "plain text"),
    ("numpy\x00==1.0", "plain text"),
    ("numpy\t==1.0", "plain text"),
    ("numpy==" + "1." * 400, "plain text"),
    ("${HOME}==1.0", "no plain name"),
    ("os; python_version < '3", "no plain name"),
    ("evil-package==1.0", "'evil-package', which is not allowed"),
    ("Evil.Package", "'evil-package', which is not allowed"),
]


@pytest.mark.parametrize(("line", "word"), HOSTILE)
def test_whatever_else_is_refused_with_file_and_line(tmp_path: Path, line: str, word: str) -> None:
    with pytest.raises(Rejected, match=re.escape(word)) as caught:
        read(model(tmp_path, f"numpy==2.4.6\n\n{line}\n"), ALLOWED)

    assert caught.value.reason.startswith("requirements.txt line 3 ")
    assert caught.value.remedy
    assert "hunter2" not in str(caught.value)
    assert caught.value.reason.isprintable()


@pytest.mark.parametrize("name", ["python_env", "conda"])
def test_the_other_files_are_read_no_less_strictly(tmp_path: Path, name: str) -> None:
    pip = ["numpy", "--index-url https://evil.example"]
    dependencies = pip if name == "python_env" else ["python=3.11", {"pip": pip}]
    with pytest.raises(Rejected, match=rf"{name}.yaml entry 2 has the option"):
        files: dict[str, Any] = {name: {"dependencies": dependencies}}
        read(model(tmp_path, **files), ALLOWED)


@pytest.mark.parametrize(
    ("file", "content", "word"),
    [
        ("requirements.txt", b"\xff\xfe", "not UTF-8"),
        ("requirements.txt", b"#" * (300 << 10), "larger than"),
        ("requirements.txt", b"numpy\n" * 301, "at most 300 lines"),
        ("conda.yaml", b"a: &a [x]\nb: *a", "not plain YAML"),
        ("conda.yaml", b"[" * 5000, "not plain YAML"),
        ("conda.yaml", b"!!python/object:os.system {}", "not plain YAML"),
        ("conda.yaml", b"- a", "no mapping"),
        ("conda.yaml", b"dependencies: 7", "no list"),
        ("conda.yaml", b"dependencies: [7]", "no list of at most"),
        ("conda.yaml", b"dependencies: [{pip: [7]}]", "no list of at most"),
        ("python_env.yaml", b"dependencies: x", "no list of at most"),
    ],
)
def test_odd_files_are_refused_by_name(tmp_path: Path, file: str, content: bytes, word: str) -> None:
    model(tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(Rejected, match=word) as caught:
        read(tmp_path, ALLOWED)
    assert caught.value.reason.startswith(file)


def test_a_folder_of_that_name_is_refused(tmp_path: Path) -> None:
    (model(tmp_path) / "requirements.txt").mkdir()
    with pytest.raises(Rejected, match="is a folder"):
        read(tmp_path, ALLOWED)


@pytest.mark.parametrize("flavors", [{"onnx": {}, "sklearn": {}}, {"python_function": {}}, [], {"sklearn": 3}])
def test_without_a_package_that_loads_it_there_is_nothing_to_read(tmp_path: Path, flavors: Any) -> None:
    logged = read(model(tmp_path, "-r evil.txt", flavors), ALLOWED)
    assert (logged.flavor, logged.requirements) == (None, ())


def test_a_bomb_in_mlmodel_is_left_to_the_sandbox(tmp_path: Path) -> None:
    lines = ["a0: &a0 {k: v}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12))]
    model(tmp_path, "numpy")
    (tmp_path / "MLmodel").write_text("\n".join([*lines, "flavors: {sklearn: {}}"]))
    assert read(tmp_path, ALLOWED).flavor is None


WORDS = """numpy scikit-learn evil == >= === 1.0 2.* @ ; python_version < '3' [ ] -r --index-url -e git+ https://x.y/z
file: / .. \\ # $ , ! ~= ( ) a 0 +cpu ${X} % and extra=='x'"""
line_parts = st.sampled_from([*WORDS.split(), " ", "\n", "\r", "\x00", "\u2028", "\u0430"])


@settings(max_examples=400, deadline=None)
@given(st.lists(line_parts, max_size=12).map("".join) | st.text(max_size=60))
@example("numpy>=1,<2 ; python_version >= '3'")
@example("numpy[a,B_c]==1.0+cpu")
def test_no_line_becomes_anything_but_a_plain_requirement(line: str) -> None:
    try:
        found = parse(line, "requirements.txt line 1", ALLOWED)
    except Rejected as error:
        assert error.reason.startswith("requirements.txt line 1 ")
        assert error.reason.isprintable()
        return
    if found is not None:
        assert PLAIN.fullmatch(str(found))
        assert found.name in ALLOWED
        assert (found.url, found.marker) == (None, None)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(set(ALLOWED) - CONVERTERS)),
    st.lists(
        st.tuples(st.sampled_from(["==", ">=", "<=", "!=", "~="]), st.integers(0, 30), st.integers(0, 30)), max_size=3
    ),
)
def test_plain_requirements_come_through_as_they_are(name: str, bounds: list[tuple[str, int, int]]) -> None:
    line = name + ",".join(f"{operator}{major}.{minor}" for operator, major, minor in bounds)
    assert parse(line, "x", ALLOWED) == Requirement(line)


def test_whoever_runs_headgate_may_allow_more(tmp_path: Path) -> None:
    folder = model(tmp_path, "tqdm==4.1\ncategory-encoders==2.8\n")
    names = [requirement.name for requirement in read(folder, [*ALLOWED, "tqdm", "category-encoders"]).requirements]
    assert names == ["category-encoders", "scikit-learn", "tqdm"]


@pytest.mark.parametrize(
    ("requirements", "unmet"),
    [
        ("scikit-learn==1.9.0\nnumpy==2.4.0\ncloudpickle==3.0.0\nskops==0.13", []),
        ("scikit-learn==1.8.9", ["scikit-learn==1.8.9, and Headgate's own is 1.9.1"]),
        ("numpy==1.26.4", ["numpy==1.26.4, and Headgate's own is 2.4.6"]),
        ("cloudpickle==3.2", ["cloudpickle==3.2, and Headgate's own is 3.1.2"]),
        ("cloudpickle==2.2", ["cloudpickle==2.2, and Headgate's own is 3.1.2"]),
        ("numpy>=1.20", []),
        ("numpy<2", ["numpy<2, and Headgate's own is 2.4.6"]),
        ("numpy[x]", ["numpy[x], which is not part of Headgate's own"]),
        ("xgboost==3.0.0", ["xgboost==3.0.0, which is not part of Headgate's own"]),
        ("onnx==1.1\nxgboost==3.0; python_version < '3'", []),
    ],
)
def test_own_packages_do_where_versions_are_alike(tmp_path: Path, requirements: str, unmet: list[str]) -> None:
    assert read(model(tmp_path, requirements), ALLOWED).unmet(OWN) == unmet


def test_a_flavor_brings_its_converters() -> None:
    assert "skl2onnx>=1.19" in additions("sklearn", ["scikit-learn", "lightgbm"])
    assert "skl2onnx>=1.19" not in additions("xgboost", ["xgboost"])
    assert "skl2onnx>=1.19" in additions("xgboost", ["xgboost", "scikit-learn"])
    assert "onnxscript" in additions("pytorch", [])
    assert "onnxscript" in additions("keras", ["torch"])
    for flavor, found in FLAVORS.items():
        names = {Requirement(line).name for line in additions(flavor, [])}
        assert {"onnx", "onnxruntime", "numpy", "pandas"} <= names
        assert found.package in ALLOWED
    assert not NEEDLESS & set(ALLOWED)


def test_equal_requests_have_equal_digests_and_others_do_not() -> None:
    asked = Wanted(("a==1", "b"), {"c": "1"})
    assert asked.digest("x") == Wanted(("b", "a==1"), {"c": "1"}).digest("x")
    others = [
        Wanted(("a==1",), {"c": "1"}).digest("x"),
        Wanted(("a==1", "b"), {"c": "2"}).digest("x"),
        asked.digest("y"),
    ]
    assert len({asked.digest("x"), *others}) == 4
    assert json.dumps(asked.digest("x")).isascii()


@pytest.mark.parametrize(
    ("name", "logged", "ours", "alike"),
    [
        ("numpy", "2.4", "2.4.6", True),
        ("numpy", "2.4.9", "2.4.6", True),
        ("numpy", "2.5.0", "2.4.6", False),
        ("joblib", "1.2.0", "1.6.0", True),
        ("joblib", "1.7.0", "1.6.0", False),
        ("joblib", "0.9", "1.6.0", False),
    ],
)
def test_what_is_alike(name: str, logged: str, ours: str, alike: bool) -> None:
    assert is_alike(name, logged, ours) is alike
