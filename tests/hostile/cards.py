"""MLmodel files that ask for code, loaders and places elsewhere, and code that lies beside a model."""

from collections.abc import Mapping
from pathlib import Path

from tests.hostile import CARD, Artifact, Artifacts, Bait

CARDS: Mapping[str, str] = {
    "a loader of their own": "flavors:\n  python_function: {loader_module: evil.loader, data: model.pkl}\n",
    "a loader of the standard library": "flavors:\n  python_function: {loader_module: os, data: model.pkl}\n",
    "a loader that looks like MLflow's": "flavors:\n  python_function: {loader_module: mlflow.sklearn.evil}\n",
    "a loader beside a good flavor": CARD + "  python_function: {loader_module: runpy}\n",
    "code of its own": CARD + "  python_function: {loader_module: mlflow.sklearn, code: code}\n",
    "code in another flavor": CARD + "    code: code\n",
    "a model made of code": CARD + "  python_function: {loader_module: mlflow.pyfunc.model, model_code_path: m.py}\n",
    "the model from the root": "flavors:\n  sklearn: {pickled_model: /etc/passwd}\n",
    "the model above": "flavors:\n  sklearn: {pickled_model: ../../../etc/passwd}\n",
    "the model above, within": "flavors:\n  sklearn: {pickled_model: a/../../model.pkl}\n",
    "the model with backslashes": "flavors:\n  sklearn: {pickled_model: '..\\..\\model.pkl'}\n",
    "the model at home": "flavors:\n  sklearn: {pickled_model: ~/.ssh/id_rsa}\n",
    "the model elsewhere": "flavors:\n  onnx: {data: 'http://169.254.169.254/latest/meta-data'}\n",
    "the model in a bucket": "flavors:\n  onnx: {data: 's3://theirs/model.onnx'}\n",
    "the model by a file address": "flavors:\n  onnx: {data: 'file:///etc/passwd'}\n",
    "the environment elsewhere": CARD + "  python_function: {env: {conda: 'https://evil.example/conda.yaml'}}\n",
    "an example elsewhere": CARD + "saved_input_example_info: {artifact_path: ../../secret.json, type: dataframe}\n",
    "a Python object": "flavors: !!python/object/apply:os.system ['true']\n",
    "a Python name": CARD + "x: !!python/name:os.system\n",
    "a tag by its full name": CARD + "x: !<tag:yaml.org,2002:python/object/new:eval> ['1']\n",
    "a tag by a directive": "%TAG ! tag:yaml.org,2002:python/\n---\nflavors: !object/apply:os.system ['true']\n",
    "a bomb of aliases": "a0: &a0 [x]\n"
    + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 20))
    + CARD,
    "brackets without end": "[" * 100_000,
    "no YAML": "{",
    "no text": "\x00\x01",
    "a list": "- flavors\n",
    "no flavors": "run_id: 1\n",
    "a flavor without settings": "flavors:\n  sklearn: yes\n",
}
BESIDE: Mapping[str, tuple[str, str]] = {
    "a Python module": ("code/evil.py", "{code}"),
    "a Python file that every start runs": ("sitecustomize.py", "{code}"),
    "compiled Python": ("code/evil.pyc", "{code}"),
    "a library": ("libevil.so", "\x7fELF\x02\x01\x01"),
    "a library without its ending": ("weights", "\x7fELF\x02\x01\x01"),
    "a program for Windows": ("readme.txt", "MZ\x00\x03"),
    "a script": ("run", "#!/bin/sh\n{command}\n"),
    "a shell script": ("setup.sh", "{command}\n"),
    "an environment that makes objects": ("conda.yaml", "x: !!python/object/apply:os.system ['{command}']\n"),
    "another one": ("python_env.yml", "x: !!python/object/apply:builtins.exec [1]\n"),
}


def artifacts() -> Artifacts:
    """MLmodel files, and files beside."""
    for name, text in CARDS.items():

        def card(folder: Path, _bait: Bait, text: str = text) -> None:
            (folder / "MLmodel").write_text(text)
            (folder / "model.pkl").write_bytes(b"\x80\x04N.")

        yield Artifact("MLmodel", name, card, "MLmodel")
    yield Artifact("MLmodel", "none", lambda folder, bait: (folder / "model.pkl").touch(), "MLmodel")
    for name, (file, content) in BESIDE.items():

        def beside(folder: Path, bait: Bait, file: str = file, content: str = content) -> None:
            (folder / "MLmodel").write_text(CARD)
            (folder / file).parent.mkdir(exist_ok=True)
            text = content.replace("{code}", bait.code).replace("{command}", bait.command)
            (folder / file).write_bytes(text.encode("latin-1"))

        yield Artifact("code beside the model", name, beside, file)
