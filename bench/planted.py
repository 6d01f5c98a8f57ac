"""What somebody who may write to a run can put into its model's folder."""

import json
import pickle
import sys
import types
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from skops import io as skops

TYPES = "    skops_trusted_types:\n"


def canary(mark: Path) -> str:
    """An expression that leaves a mark when it is computed."""
    return f"__import__('pathlib').Path({str(mark)!r}).touch()"


def replace(path: Path, old: str, new: str) -> None:
    before = path.read_text()
    if old not in before:
        raise ValueError(f"{path} has no {old!r}")
    path.write_text(before.replace(old, new))


class Runs:
    """Something that runs a program when it is unpickled."""

    def __init__(self, program: str) -> None:
        self.program = program

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return exec, (self.program,)


def other_loader(folder: Path, program: str) -> None:
    (folder / "code" / "planted_loader.py").write_text(f"{program}\ndef _load_pyfunc(path): return exec\n")
    replace(folder / "MLmodel", "loader_module: understudy.scoring.flavor", "loader_module: planted_loader")


def other_code(folder: Path, program: str) -> None:
    (folder / "evilcode").mkdir()
    (folder / "evilcode" / "onnxruntime.py").write_text(f"{program}\n")
    replace(folder / "MLmodel", "code: code", "code: evilcode")


def pickled(folder: Path, program: str) -> None:
    (folder / "model.pkl").write_bytes(pickle.dumps(Runs(program)))
    replace(folder / "MLmodel", "serialization_format: skops", "serialization_format: pickle")
    replace(folder / "MLmodel", "pickled_model: model.skops", "pickled_model: model.pkl")


def pickled_in_place(folder: Path, program: str) -> None:
    (folder / "model.skops").write_bytes(pickle.dumps(Runs(program)))
    replace(folder / "MLmodel", "serialization_format: skops", "serialization_format: cloudpickle")


def other_class(folder: Path, program: str) -> None:
    planted = types.ModuleType("planted_skops")
    planted.Planted = type("Planted", (), {"__module__": planted.__name__})  # type: ignore[attr-defined]
    sys.modules[planted.__name__] = planted
    (folder / "model.skops").write_bytes(skops.dumps(planted.Planted()))
    del sys.modules[planted.__name__]
    (folder / "code" / "planted_skops.py").write_text(f"{program}\nclass Planted: pass\n")
    replace(folder / "MLmodel", TYPES, f"{TYPES}    - planted_skops.Planted\n")


def pipeline(folder: Path, *steps: Any) -> None:
    """Another Pipeline, with the list of its types."""
    named = [(str(number), step) for number, step in enumerate(steps)]
    data = skops.dumps(Pipeline([*named, ("classifier", DummyClassifier().fit([[0]], ["Y"]))]))
    (folder / "model.skops").write_bytes(data)
    trust(folder)


def trust(folder: Path) -> None:
    """Let MLmodel name the types that the skops file has."""
    head, _, tail = (folder / "MLmodel").read_text().partition(TYPES)
    rest = tail[tail.index("is_signature") :]
    listed = "".join(f"    - {name}\n" for name in skops.get_untrusted_types(file=folder / "model.skops"))
    (folder / "MLmodel").write_text(f"{head}{TYPES}{listed}{rest}")


def functions(folder: Path, program: str) -> None:
    fill = FunctionTransformer(np.full_like, kw_args={"fill_value": program, "dtype": object})
    pipeline(folder, fill, FunctionTransformer(np.ravel), HashingVectorizer(preprocessor=np.testing.measure))


def edited(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """The skops file with another schema."""
    file = folder / "model.skops"
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(entries["schema.json"])
    edit(schema)
    entries["schema.json"] = json.dumps(schema).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    trust(folder)


def step(schema: dict[str, Any], number: int) -> Any:
    return schema["content"]["content"]["steps"]["content"][number]["content"][1]


def other_method(folder: Path, program: str) -> None:
    def edit(schema: dict[str, Any]) -> None:
        step(schema, 0)["content"]["content"]["func"]["content"]["func"] = "read"

    edited(folder, edit)


def more_arguments(folder: Path, program: str) -> None:
    def edit(schema: dict[str, Any]) -> None:
        step(schema, 0)["content"]["content"]["kw_args"] |= {"content": '{"out": 1}', "__id__": 1}

    edited(folder, edit)


def one_id_for_two(folder: Path, program: str) -> None:
    """Skops would take the function for the Pipeline's second step, whatever is written there."""

    def edit(schema: dict[str, Any]) -> None:
        step(schema, 1)["__id__"] = step(schema, 0)["content"]["content"]["func"]["__id__"]

    edited(folder, edit)


def attribute(name: str) -> Callable[[Path, str], None]:
    """One more attribute of the Pipeline, which calls a function as soon as it is made."""

    def plant(folder: Path, program: str) -> None:
        def node(loader: str, module: str, kind: str, **content: Any) -> dict[str, Any]:
            numbers.append(len(numbers))
            return {"__loader__": loader, "__module__": module, "__class__": kind, "__id__": len(numbers), **content}

        def edit(schema: dict[str, Any]) -> None:
            text = node("JsonNode", "builtins", "str", content=json.dumps(program), is_json=True)
            function = node("FunctionNode", "builtins", "eval")
            called = node("TupleNode", "builtins", "tuple", content=[function, text])
            schema["content"]["content"][name] = node("OperatorFuncNode", "operator", "call", attrs=called)
            keys = schema["content"]["key_types"]["content"]
            keys.append({**keys[0], "__id__": len(numbers) + 1})

        numbers: list[int] = []
        edited(folder, edit)

    return plant


def empty_arguments(folder: Path, program: str) -> None:
    def edit(schema: dict[str, Any]) -> None:
        step(schema, 0)["content"]["content"]["kw_args"] |= {"content": '{"out": {}}', "__id__": 1}

    edited(folder, edit)


def renamed_arrays(folder: Path, program: str) -> None:
    """Arrays that skops reads all the same, and a look at *.npy does not see."""
    file = folder / "model.skops"
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            renamed = content.replace(b".npy", b".NPY") if name == "schema.json" else content
            archive.writestr(name.replace(".npy", ".NPY"), renamed)


def compressed(folder: Path, program: str) -> None:
    with zipfile.ZipFile(folder / "model.skops") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(folder / "model.skops", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def circle(folder: Path, program: str) -> None:
    """A tree whose root is its own child: compiled code would go round for ever."""
    with zipfile.ZipFile(folder / "model.skops") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(folder / "model.skops", "w") as archive:
        for name, content in entries.items():
            if b"left_child" in content[:200]:
                (folder / "nodes.npy").write_bytes(content)
                nodes = np.load(folder / "nodes.npy")
                nodes["left_child"][0] = 0
                np.save(folder / "nodes.npy", nodes)
                content = (folder / "nodes.npy").read_bytes()
                (folder / "nodes.npy").unlink()
            archive.writestr(name, content)


def scorer(folder: Path, **values: Any) -> None:
    file = folder / "scorer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def bundled_code(folder: Path, program: str) -> None:
    begin = "class MlflowRowsRefused"
    replace(folder / "code" / "understudy" / "scoring" / "flavor.py", begin, f"{program}\n{begin}")


def model_code(folder: Path, program: str) -> None:
    (folder / "planted.py").write_text(f"{program}\n")
    replace(folder / "MLmodel", "    loader_module:", "    model_code_path: planted.py\n    loader_module:")


def another_flavor(folder: Path, program: str) -> None:
    replace(folder / "MLmodel", "flavors:\n", "flavors:\n  onnx:\n    data: model.onnx\n    onnx_version: 1.0\n")


def external_data(folder: Path, program: str) -> None:
    """An ONNX file whose numbers are those of another file, anywhere."""
    tensor = helper.make_tensor("w", TensorProto.DOUBLE, [1, 1], [0.0])
    tensor.ClearField("double_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    node = helper.make_node("MatMul", ["columns", "w"], ["sum"])
    ends = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, 1]) for name in ("columns", "sum")]
    graph = helper.make_graph([node], "trees", ends[:1], ends[1:], [tensor])
    (folder / "trees.onnx").write_bytes(helper.make_model(graph).SerializeToString())


def fitted_with_code(folder: Path, program: str) -> None:
    """What the live server would load by scikit-learn, from code that is named beside it."""
    other_code(folder, program)
    scorer(folder, kind="sklearn")


def write(name: str, content: str = "") -> Callable[[Path, str], None]:
    """A file that runs a program, or has some content."""

    def plant(folder: Path, program: str) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content or f"import os; {program}\n")

    return plant


@dataclass(frozen=True)
class Planted:
    """Something that is planted, how it is named, and whether it runs when the folder is loaded and asked."""

    plant: Callable[[Path, str], object]
    named: str
    runs: bool = False


SHARES = '"spread": [[[0.0, 1.0], ['
FEATURES = "".join(f'{{"name": "Gender {number}", "of": ["Gender"], "log": false}}, ' for number in range(5_000))
NOT_OF_THE_FAMILY = "has something that its family has not: "
PLANTED = {
    "code from another folder": Planted(other_code, "evilcode/onnxruntime.py is none of its files", runs=True),
    "code of another text": Planted(bundled_code, "code/understudy/scoring/flavor.py is not the module", runs=True),
    "another loader": Planted(other_loader, "code/planted_loader.py is none of its files", runs=True),
    "the loader of another module": Planted(
        lambda folder, _: replace(folder / "MLmodel", "understudy.scoring.flavor", "mlflow.pyfunc.model"),
        "loader_module is",
    ),
    "pickle": Planted(pickled, "model.pkl is none of its files", runs=True),
    "pickle under skops's name": Planted(pickled_in_place, "model.skops (BadZipFile", runs=True),
    "a class of somebody's own": Planted(other_class, "code/planted_skops.py is none of its files", runs=True),
    "functions of numpy's": Planted(functions, NOT_OF_THE_FAMILY, runs=True),
    "a method of a text": Planted(
        lambda folder, _: pipeline(folder, FunctionTransformer("/etc/passwd".format)),
        NOT_OF_THE_FAMILY,
    ),
    "another method of the table": Planted(other_method, "steps.1.func.func is 'read'"),
    "an attribute under a file's name": Planted(attribute("file"), "file is operator.call", runs=True),
    "an attribute under a version's name": Planted(attribute("_skops_version"), "_skops_version is ", runs=True),
    "an attribute of one's own": Planted(attribute("more"), "more is ", runs=True),
    "empty arguments": Planted(empty_arguments, NOT_OF_THE_FAMILY),
    "arrays of another name": Planted(renamed_arrays, "it has an entry of another name"),
    "aliases in YAML": Planted(
        lambda folder, _: replace(folder / "MLmodel", "prompts: null", "prompts: &a [1]\nmore: [*a, *a]"),
        "MLmodel refers to itself",
    ),
    "bytes that are no text": Planted(
        lambda folder, _: (folder / "requirements.txt").write_bytes(b"\xff"), "requirements.txt (UnicodeDecodeError"
    ),
    "shares that are text": Planted(
        lambda folder, _: replace(
            folder / "scorer.json", '"spread": [[[0.0, 1.0], [', '"spread": [[[0.0, 1.0], ["1", '
        ),
        named="scorer.json",
    ),
    "a version that is more than a number": Planted(
        lambda folder, _: replace(folder / "requirements.txt", "numpy==", "numpy==1+evil; x == "),
        named="requirements.txt names",
    ),
    "another target": Planted(
        lambda folder, _: replace(folder / "scorer.json", '"target": {"name": "Loan_Status"', '"target": {"name": "G"'),
        named="or of another target",
    ),
    "a table of very many columns": Planted(
        lambda folder, _: replace(folder / "scorer.json", '"features": [', f'"features": [{FEATURES}'),
        named="becomes more than 5000 columns",
    ),
    "arguments for the method": Planted(more_arguments, "steps.1.kw_args is items"),
    "one id for two objects": Planted(one_id_for_two, "one id stands for two objects"),
    "types that it has not": Planted(
        lambda folder, _: replace(folder / "MLmodel", TYPES, f"{TYPES}    - os.system\n"), "skops_trusted_types is"
    ),
    "compressed entries": Planted(compressed, "its entries are compressed"),
    "a tree in a circle": Planted(circle, "the nodes of a tree lead nowhere"),
    "code that a model is made by": Planted(model_code, "planted.py is none of its files"),
    "a config": Planted(
        lambda folder, _: replace(folder / "MLmodel", "    loader_module:", "    config: {a: 1}\n    loader_module:"),
        "MLmodel: flavors.python_function: config is not known",
    ),
    "another flavor": Planted(another_flavor, "MLmodel: flavors: onnx is not known"),
    "a signature with inputs": Planted(
        lambda folder, _: replace(folder / "MLmodel", "  inputs: null", "  inputs: '[]'"),
        "MLmodel: signature.inputs is",
    ),
    "a .pth file": Planted(write("code/planted.pth"), "code/planted.pth is none of its files"),
    "sitecustomize": Planted(write("code/sitecustomize.py"), "code/sitecustomize.py is none of its files"),
    "a package that shadows": Planted(write("code/onnxruntime.py"), "code/onnxruntime.py is none of its files"),
    "a module more": Planted(write("code/understudy/more.py"), "code/understudy/more.py is not the module"),
    "a module more in a room": Planted(
        write("code/understudy/scoring/more.py"), "code/understudy/scoring/more.py is not the module"
    ),
    "a folder within a room": Planted(
        write("code/understudy/scoring/more/more.py"), "code/understudy/scoring/more/more.py is none of its files"
    ),
    "a file name of two lines": Planted(write("code/a\nb"), r"code/a\nb is none of its files"),
    "a folder where MLflow leaves a file": Planted(
        write("registered_model_meta/a"), "registered_model_meta/a is none of its files"
    ),
    "another package to install": Planted(
        lambda folder, _: replace(folder / "requirements.txt", "skops==", "skopps=="), "requirements.txt names other"
    ),
    "a package from elsewhere": Planted(
        lambda folder, _: replace(folder / "conda.yaml", "numpy==", "numpy @ https://127.0.0.1/=="), "conda.yaml names"
    ),
    "ONNX of another file": Planted(external_data, "trees.onnx is not what model.skops says"),
    "scikit-learn's form with code": Planted(fitted_with_code, "evilcode/onnxruntime.py is none of its files"),
    "scikit-learn's form where there is a faster one": Planted(
        lambda folder, _: scorer(folder, kind="sklearn"), "scorer.json: kind is not what model.skops says"
    ),
    "a threshold that is no number": Planted(
        lambda folder, _: scorer(folder, threshold=float("nan")), "scorer.json: threshold is not what"
    ),
    "absurd numbers": Planted(
        lambda folder, _: scorer(folder, prepare={"fill": [1e308] * 10, "counts": [10**12], "categories": [0]}),
        "scorer.json: prepare is not what model.skops says",
    ),
    "absurd rows": Planted(
        lambda folder, _: scorer(folder, stored={"rows": [[[]]], "probabilities": [2]}), "scorer.json"
    ),
    "no table": Planted(lambda folder, _: scorer(folder, table=[1]), "scorer.json (TypeError"),
    "another table": Planted(
        lambda folder, _: replace(folder / "scorer.json", '"split_seed": 0', '"split_seed": 7'), "are of two tables"
    ),
    "another answer": Planted(lambda folder, _: scorer(folder, spread=[[[1], [2]]]), "scorer.json: spread"),
}
