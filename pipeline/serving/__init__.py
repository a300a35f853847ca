"""A merged model behind HTTP: an exported folder as an MLflow model without any pickle.

    save_served(Path("merged-clip"), Path("served"))   # of `adamerge export`, in open_clip's format
    answers = mlflow.pyfunc.load_model("served").predict(table, params={"task": "cars"})

`served_model.py` is the model's own code: MLflow copies the file and runs it, so it imports nothing
of this package. Elsewhere in this project only `pipeline.tracking` imports mlflow.
"""

from pipeline.serving.saving import check_servable, request_for, save_served

__all__ = ["check_servable", "request_for", "save_served"]
