"""load_dataset(): any data set that the command line takes."""

from __future__ import annotations

from pathlib import Path

from transferbench import data
from transferbench.base import dataset_id, registry
from transferbench.base.errors import InputError
from transferbench.base.numbers import whole_number
from transferbench.data import Dataset, Split, View
from transferbench.data.preprocessing import Preprocessing
from transferbench.models.victim import Victim


def load_dataset(
    id: str,
    split: Split = "test",
    n: int | None = None,
    *,
    model: Victim | None = None,
    preprocessing: str = "",
    data_dir: str | Path | None = None,
    download: bool = False,
) -> Dataset:
    """The first n examples (all by default) of a split (train, val, test) of a data set of `transferbench list
    datasets`, in its published order: those that `eval --n` attacks.

    Returns a data set: `pixels` float32 [n, C, H, W] in [0,1], decoded when it is asked for; `labels` int64 [n]; `ids`
    int64 [n], which key the random starts; `classes`, their names. `evaluate(model, dataset)` takes it as it is.
    Photographs come in any size: give the `model` whose images they are to be, or a `preprocessing` (`Res256Crop224`).
    `data_dir` is the folder of data sets (default: data); `download` fetches what is missing there.

    Raises InputError for an unknown id or split, missing or wrong files, and more examples than there are.
    """
    dataset_id.find(id)
    if split not in data.SPLITS:
        raise InputError(registry.unknown("split", split, data.SPLITS))
    n = None if n is None else whole_number("n", n, at_least=1)
    if model is not None and not isinstance(model, Victim):
        raise InputError(f"model must be what load_model returns, not {type(model).__name__}")
    root = None if data_dir is None else Path(data_dir)
    if download:
        data.download(id, root)
    if preprocessing:
        view = View(Preprocessing.parse(preprocessing).text)
    elif model is not None:
        view = View.of(model.card.preprocessing, model.card.input_shape)
    elif data.are_photographs(id):
        raise InputError(f"data set {id}: photographs have no size of their own: give model= or preprocessing=")
    else:
        view = View()
    whole = data.load(id, split, root, view)
    return whole if n is None else whole.first(n)
