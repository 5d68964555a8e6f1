"""The code of a run's model in MLflow, where a copy of it lies: it runs where MLflow loads the model."""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from spectro.errors import SpectroError
from spectro.plugins import load_plugins
from spectro.runs.served import ServedModel


class SpectroModel(PythonModel):
    """`ServedModel` for a table of requests; its errors are those that MLflow's server answers with status 400."""

    def load_context(self, context: Any) -> None:
        """Loads the model; ``model_config`` has installed ``plugins``, and ``image_folder`` of `ServedModel`."""
        config = context.model_config or {}
        load_plugins(config.get("plugins") or [], is_here=False)  # the run that names them may be anybody's
        self._model = ServedModel(Path(context.artifacts["model"]), config.get("image_folder"))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """A row for each row of the request, with the columns of `ServedModel.predict`."""
        try:
            # Without rows, or without a column that MLflow lets through, there is no record: that is no request.
            return pd.DataFrame(self._model.predict(model_input.to_dict("records") or [{}]))
        except SpectroError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


set_model(SpectroModel())
