"""Files of users of every kind: the right value, or an error that names the file."""

import pathlib
import sys

import file_kinds
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.parametrize(
    "kind", file_kinds.FILE_KINDS, ids=lambda kind: f"{kind.data}: {kind.file}".replace("`", "")
)
def test_file_is_read_right_or_refused_by_name(kind, tmp_path, monkeypatch):
    path = kind.write(tmp_path)
    if "soundfile" not in kind.result and "FLAC" not in kind.file:  # read without it
        monkeypatch.setitem(sys.modules, "soundfile", None)
    if kind.value is None:
        with pytest.raises(ValueError) as error:
            kind.load(path)
        assert kind.result in str(error.value)
        name = next(tmp_path.iterdir()).name if kind.data == "image" else pathlib.Path(path).name
        assert str(error.value).startswith(str(path)) and name[1:] in str(error.value)
    elif isinstance(kind.value, str) or kind.data == "pairs":
        assert kind.load(path) == kind.value
    else:
        loaded = kind.load(path)
        assert loaded.shape == np.shape(kind.value)
        np.testing.assert_allclose(
            loaded.astype("float64"), kind.value, rtol=1e-6, atol=kind.tolerance
        )


def test_table_of_the_file_kinds_is_up_to_date():
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    assert file_kinds.render() in text, "run: python tests/file_kinds.py"
