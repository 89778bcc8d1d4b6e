"""What Dagster does not publish and WikiStream uses all the same: the first file to look at when Dagster changes."""

from dagster._cli.api import _execute_run_command_body as execute_run
from dagster._cli.api import grpc_command
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange
from dagster._core.errors import DagsterUserCodeProcessError
from dagster._core.events import DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.retries import auto_reexecution_should_retry_run
from dagster._core.instance.utils import RUNLESS_RUN_ID
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, LaunchRunContext, WorkerStatus
from dagster._core.storage.asset_check_execution_record import COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES
from dagster._core.storage.dagster_run import FINISHED_STATUSES, NOT_FINISHED_STATUSES
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.tags import MAX_RETRIES_TAG, PARTITION_NAME_TAG, WILL_RETRY_TAG
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._grpc.client import DagsterGrpcClient
from dagster._serdes import ConfigurableClassData
from dagster._utils.log import configure_loggers
from dagster_shared.error import SerializableErrorInfo

__all__ = [
    "COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES",
    "FINISHED_STATUSES",
    "MAX_RETRIES_TAG",
    "NOT_FINISHED_STATUSES",
    "PARTITION_NAME_TAG",
    "RUNLESS_RUN_ID",
    "WILL_RETRY_TAG",
    "AssetCheckExecutionsTable",
    "AssetEventTagsTable",
    "CheckRunHealthResult",
    "ConfigurableClassData",
    "DagsterEventType",
    "DagsterGrpcClient",
    "DagsterUserCodeProcessError",
    "DefaultRunLauncher",
    "EventLogEntry",
    "FreshnessState",
    "FreshnessStateChange",
    "LaunchRunContext",
    "SerializableErrorInfo",
    "SqlEventLogStorage",
    "SqlEventLogStorageTable",
    "WorkerStatus",
    "WorkspaceFileTarget",
    "WorkspaceProcessContext",
    "auto_reexecution_should_retry_run",
    "configure_loggers",
    "execute_run",
    "grpc_command",
]
