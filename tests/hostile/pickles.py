"""Pickles that call what they should not: by plain imports, by tricks on scanners, and under other names."""

import pickle
import struct
from collections.abc import Callable, Mapping

from tests.hostile import Artifact, Artifacts, Bait, in_model

# By module; known ways past this or that scanner's list are among them.
CALLS: Mapping[str, str] = {
    "os": "system popen execv remove spawnl",
    "posix": "system execve unlink",
    "nt": "system",
    "subprocess": "Popen call check_output run getoutput",
    "builtins": "eval exec compile __import__ getattr open breakpoint globals setattr",
    "__builtin__": "eval execfile apply",
    "importlib": "import_module reload",
    "importlib._bootstrap_external": "SourceFileLoader",
    "runpy": "run_path run_module _run_code",
    "pty": "spawn",
    "timeit": "timeit",
    "cProfile": "run runctx",
    "profile": "run",
    "pdb": "run",
    "bdb": "Bdb.run",
    "trace": "Trace.runctx",
    "code": "InteractiveInterpreter.runcode",
    "codeop": "compile_command",
    "doctest": "debug_script",
    "pydoc": "pipepager locate",
    "webbrowser": "open",
    "shutil": "rmtree copyfile",
    "socket": "create_connection socket",
    "ssl": "get_server_certificate",
    "urllib.request": "urlopen urlretrieve",
    "http.client": "HTTPSConnection",
    "ftplib": "FTP",
    "smtplib": "SMTP",
    "xmlrpc.client": "ServerProxy",
    "asyncio.unix_events": "_UnixSubprocessTransport._start",
    "multiprocessing.util": "spawnv_passfds",
    "multiprocessing.connection": "Client",
    "numpy.f2py.crackfortran": "getlincoef myeval",
    "numpy.testing._private.utils": "runstring",
    "numpy": "load fromfile memmap",
    "numpy.lib._npyio_impl": "loadtxt",
    "torch": "load",
    "torch.hub": "load",
    "torch.utils.bottleneck.__main__": "run_cprofile",
    "torch.utils._config_module": "ConfigModule.load_config",
    "torch.jit.unsupported_tensor_ops": "execWrapper",
    "torch.fx.experimental.symbolic_shapes": "ShapeEnv.evaluate_guards_expression",
    "torch._dynamo.guards": "GuardBuilder.get",
    "idlelib.pyshell": "ModifiedInterpreter.runcode",
    "idlelib.debugobj": "ObjectTreeItem.SetText",
    "idlelib.autocomplete": "AutoComplete.get_entity",
    "idlelib.calltip": "get_entity",
    "lib2to3.pgen2.grammar": "Grammar.loads",
    "lib2to3.pgen2.pgen": "ParserGenerator.make_label",
    "ensurepip": "_run_pip",
    "pip": "main",
    "venv": "create",
    "uuid": "_get_command_stdout",
    "ctypes": "CDLL",
    "_osx_support": "_read_output",
    "_aix_support": "_read_cmd_output",
    "distutils.file_util": "write_file",
    "operator": "methodcaller attrgetter",
    "functools": "reduce",
    "types": "FunctionType CodeType",
    "marshal": "loads",
    "pickle": "loads",
    "_pickle": "Unpickler",
    "joblib": "load",
    "dill._dill": "_create_function",
    "cloudpickle.cloudpickle": "_make_function",
    "pandas": "read_pickle eval",
    "pandas.core.computation.eval": "eval",
    "sklearn.datasets._base": "fetch_file",
    "sklearn.utils.fixes": "os.system",
    "mlflow.pyfunc": "load_model",
    "skops.io": "load",
    "onnxruntime": "InferenceSession",
    "zipimport": "zipimporter",
    "logging.config": "fileConfig",
    "pkgutil": "resolve_name",
    "sqlite3": "connect",
    "signal": "raise_signal",
    "sys": "exit settrace",
    "gc": "get_objects",
    "a_package_of_theirs": "Model",
}
_SHELL = frozenset({"os", "posix", "nt", "subprocess", "pty", "uuid", "_osx_support", "_aix_support"})


def text(word: str) -> bytes:
    """An opcode that pushes the text."""
    data = word.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def call(module: str, name: str, argument: str) -> bytes:
    """A pickle of protocol 4 that imports `module` `name` and calls it with one argument."""
    return b"\x80\x04" + text(module) + text(name) + b"\x93" + text(argument) + b"\x85R."


def evil(bait: Bait) -> bytes:
    """The plain one that others hide."""
    return call("builtins", "exec", bait.code)


def _old(bait: Bait, opening: bytes = b"") -> bytes:
    return opening + b"cbuiltins\nexec\n(" + b"V" + bait.code.encode() + b"\ntR."


def _with_memo(get: bytes) -> Callable[[Bait], bytes]:
    def data(bait: Bait) -> bytes:
        good = text("sklearn.base") + b"000" if get.startswith(b"0") else b""
        names = text("builtins") + b"\x94" + text("exec") + b"\x94" + good
        return b"\x80\x04" + names + get.lstrip(b"0") + b"\x93" + text(bait.code) + b"\x85R."

    return data


TRICKS: Mapping[str, Callable[[Bait], bytes]] = {
    "protocol 0": _old,
    "protocol 1": lambda bait: b"cbuiltins\nexec\n(" + text(bait.code) + b"tR.",
    "protocol 2": lambda bait: _old(bait, b"\x80\x02"),
    "protocol 3": lambda bait: _old(bait, b"\x80\x03"),
    "protocol 5": lambda bait: b"\x80\x05" + evil(bait)[2:],
    "an instance of the old kind": lambda bait: b"(V" + bait.code.encode() + b"\nibuiltins\nexec\n.",
    "an object of the old kind": lambda bait: b"(cbuiltins\nexec\n" + text(bait.code) + b"o.",
    "a class without a call": lambda bait: b"\x80\x04" + text("code") + text("InteractiveConsole") + b"\x93)\x81.",
    "a class with named arguments": lambda bait: (
        b"\x80\x04" + text("subprocess") + text("Popen") + b"\x93" + text(bait.command) + b"\x85}\x92."
    ),
    "a state that calls": lambda bait: (
        b"\x80\x04" + text("zipimport") + text("zipimporter") + b"\x93)\x81}" + text("x") + text(bait.code) + b"sb."
    ),
    "names by way of the memo": _with_memo(b"0h\x00h\x01"),
    "names by way of a long memo": _with_memo(b"0j\x00\x00\x00\x00j\x01\x00\x00\x00"),
    "names as old strings": lambda bait: b"\x80\x04U\x08builtinsU\x04exec\x93" + text(bait.code) + b"\x85R.",
    "names with escapes": lambda bait: b"\x80\x04S'\\x62uiltins'\nS'e\\x78ec'\n\x93" + text(bait.code) + b"\x85R.",
    "frames between name and import": lambda bait: (
        b"\x80\x04"
        + text("builtins")
        + b"\x95"
        + bytes(8)
        + text("exec")
        + b"\x95"
        + bytes(8)
        + b"\x93"
        + text(bait.code)
        + b"\x85R."
    ),
    "a good pickle before": lambda bait: pickle.dumps([1, 2]) + evil(bait),
    "many good pickles before": lambda bait: pickle.dumps(0) * 2000 + evil(bait),
    "broken after the call": lambda bait: evil(bait)[:-1] + b"\xff\xff\xff",
    "broken by an unknown opcode": lambda bait: evil(bait)[:-1] + b"\x00.",
    "broken by a missing item": lambda bait: evil(bait)[:-1] + b"000000.",
    "without an end": lambda bait: evil(bait)[:-1],
    "cut in a text": lambda bait: evil(bait)[:-1] + b"X\xff\xff\xff\x7f",
    "two protocol marks": lambda bait: b"\x80\x04\x80\x04" + evil(bait)[2:],
    "a dotted name": lambda bait: call("sklearn.base", "warnings.sys.modules.get", bait.code),
    "a dotted name of an old protocol": lambda bait: b"csklearn.base\nwarnings.sys.exit\n(tR.",
    "a name of another alphabet": lambda bait: call("ｏｓ", "ｓｙｓｔｅｍ", bait.command),  # noqa: RUF001 - Python reads it as os
    "a pickle within": lambda bait: (
        b"\x80\x04"
        + text("pickle")
        + text("loads")
        + b"\x93"
        + b"B"
        + struct.pack("<I", len(evil(bait)))
        + evil(bait)
        + b"\x85R."
    ),
    "a partial of it": lambda bait: (
        b"\x80\x04"
        + text("functools")
        + text("partial")
        + b"\x93"
        + text("os")
        + text("system")
        + b"\x93"
        + text(bait.command)
        + b"\x86R."
    ),
    "an import that is only fetched": lambda bait: b"\x80\x04" + text("antigravity") + text("webbrowser") + b"\x93.",
    "a getattr chain": lambda bait: (
        b"\x80\x04"
        + text("builtins")
        + text("getattr")
        + b"\x93"
        + text("os")
        + text("path")
        + b"\x93"
        + text("os")
        + b"\x86R"
        + text("system")
        + b"0"
        + text(bait.command)
        + b"\x85R."
    ),
    "persistent identities": lambda bait: b"\x80\x04" + text("builtins") + text("eval") + b"\x93P" + b"x\n0.",
    "code by value": lambda bait: call("cloudpickle.cloudpickle", "_builtin_type", "CodeType"),
    "a huge list before": lambda bait: pickle.dumps(list(range(50_000)))[:-1] + b"0" + evil(bait)[2:],
}

NAMES = (
    *("notes.txt", "README", "input_example.json", "weights.onnx", "conda.yaml", ".hidden", "model.skops", "rows.csv"),
    *("picture.png", "a/b/c/d/model", "MLmodel.bak", "data.npy", "serving_input_example.json", "x.pkl.txt", "model.h5"),
    *("model.pt", "model.joblib", "weights.safetensors", "saved_model.pb", "requirements.txt", "vocab.gguf", "日本語"),
)


def artifacts() -> Artifacts:
    """Imports, tricks, names."""
    for module, names in CALLS.items():
        for name in names.split():

            def data(bait: Bait, module: str = module, name: str = name) -> bytes:
                return call(module, name, bait.command if module in _SHELL else bait.code)

            yield Artifact("import", f"{module}.{name}", in_model(data), "model.pkl")
    for trick, made in TRICKS.items():
        yield Artifact("pickle trick", trick, in_model(made), "model.pkl")
    for file in NAMES:
        yield Artifact("hidden pickle", file, in_model(evil, file), ascii(file)[1:-1])
