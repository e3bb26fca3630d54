"""ModelReport's executor: artifacts in, one HTML page and its charts out."""

from __future__ import annotations

import json
import posixpath
from typing import Any

from google.protobuf import json_format
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils

from components.model_report import page
from components.model_report.contents import REPORT_FILE
from components.model_report.gather import gather

SETTINGS_KEY = "settings"
SOURCE_DIGESTS_KEY = "source_digests"
CONNECTION_KEY = "metadata_connection"
REPORT_KEY = "report"


class Executor(base_executor.BaseExecutor):
    """Writes the report of a run, whether its model was blessed or not."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Write the page.

        Args:
            input_dict: As `ModelReportSpec.INPUTS`; `baseline_model` and `hyperparameters` may be absent or empty.
            output_dict: `report`: gets report.html and the charts as PNG files.
            exec_properties: `settings` and `source_digests`, JSON objects; `metadata_connection`, JSON of an ML
                Metadata ConnectionConfig, absent where there is none.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        connection = exec_properties.get(CONNECTION_KEY)
        settings = json.loads(exec_properties[SETTINGS_KEY])
        info = self._context.pipeline_info if self._context else None
        contents = gather(
            input_dict,
            settings=settings,
            source_digests=json.loads(exec_properties[SOURCE_DIGESTS_KEY]),
            connection=json_format.Parse(connection, mlmd.ConnectionConfig()) if connection else None,
            pipeline=info.id if info else settings["profile"],  # Kubeflow does not tell
            run=(self._context.pipeline_run_id or "") if self._context else "",
        )
        folder = artifact_utils.get_single_instance(output_dict[REPORT_KEY]).uri
        fileio.makedirs(folder)
        for name, content in page.render(contents, REPORT_FILE).items():
            with fileio.open(posixpath.join(folder, name), "wb") as file:
                file.write(content)
